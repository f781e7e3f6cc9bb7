-- The partitions of the tables of this app, by hand or by a schedule of one's own: made ahead or on demand, with the rows
-- that already lie in the default partition.

create or replace function create_monthly_partition(target_month date) returns void
language plpgsql
set search_path = public, pg_temp
as $$
begin
  perform b44.create_partition('posts', 'month', target_month);
end
$$;

create or replace procedure create_monthly_partition_online(target_month date)
language plpgsql
as $$
begin
  call public.drain_default_partition('posts', 'month', array[target_month]);
end
$$;

create or replace function manage_partitions() returns void
language plpgsql
set search_path = public, pg_temp
as $$
begin
  if to_regclass('posts') is not null then
    perform b44.manage_partitions('posts', 'month', 12);
  end if;
  if to_regclass('audit_logs') is not null then
    perform b44.manage_partitions('audit_logs', 'year', 1);
  end if;
end
$$;

comment on function create_monthly_partition is 'Makes the partition of posts for a month (UTC), if it is not there; rows of that month in the default partition move to it';
comment on procedure create_monthly_partition_online is 'Makes the partition of posts for a month (UTC) like create_monthly_partition, for any number of rows in the default partition, and without making others wait for it';
comment on function manage_partitions is 'Keeps partitions ahead: of posts for 12 months, of audit_logs for the next year';

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  create_monthly_partition(date),
  create_monthly_partition_online(date),
  manage_partitions()
from public;
