-- Partitions by calendar month and year, in UTC.

create or replace function base44_create_partition(parent text, period text, day date) returns text
language plpgsql
as $$
declare
  first_moment constant timestamptz := date_trunc(period, day::timestamp) at time zone 'UTC';
  next_moment constant timestamptz := (date_trunc(period, day::timestamp) + ('1 ' || period)::interval) at time zone 'UTC';
  partition_name constant text := parent || to_char(date_trunc(period, day::timestamp),
    case period when 'month' then '_YYYY_MM' when 'year' then '_YYYY' end);
begin
  if to_regclass(quote_ident(partition_name)) is null then
    execute format('create table if not exists %I partition of %I for values from (%L) to (%L)',
      partition_name, parent, first_moment, next_moment);
  end if;
  return partition_name;
end
$$;

create or replace function create_monthly_partition(target_month date) returns void
language sql
begin atomic
  select base44_create_partition('posts', 'month', target_month);
end;

comment on function base44_create_partition(text, text, date) is 'Makes the partition of a month or year that a day lies in, if it is not there; returns its name';
comment on function create_monthly_partition(date) is 'Makes the partition of posts for a month (UTC), if it is not there';
