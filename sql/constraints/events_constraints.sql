-- One event a user and day, and whose it is. A date_trunc on a date with time zone depends on the session's
-- zone, which an index must not: days here are those of UTC. Equality is all that is compared, so a B-tree does, and no
-- extension (btree_gist) is needed.
-- on: events
-- depends: users

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'events'::regclass and conname = 'unique_event_per_day') then
    alter table events add constraint unique_event_per_day
      exclude using btree (user_id with =, ((event_date at time zone 'UTC')::date) with =) where (cancelled = false);
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'events'::regclass and conname = 'chk_events_finite_times') then
    alter table events add constraint chk_events_finite_times
      check (isfinite(event_date) and isfinite(created_at) and isfinite(updated_at));
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'events'::regclass and conname = 'fk_events_user_id') then
    alter table events add constraint fk_events_user_id foreign key (user_id) references users (id) on delete cascade;
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'events'::regclass and conname = 'fk_events_created_by') then
    alter table events add constraint fk_events_created_by foreign key (created_by) references users (id);
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'events'::regclass and conname = 'fk_events_updated_by') then
    alter table events add constraint fk_events_updated_by foreign key (updated_by) references users (id);
  end if;
end $$;
