-- Who did it; an entry outlives its user, and then has none.
-- on: audit_logs
-- depends: users

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'audit_logs'::regclass and conname = 'chk_audit_logs_finite_times') then
    alter table audit_logs add constraint chk_audit_logs_finite_times check (isfinite(timestamp));
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'audit_logs'::regclass and conname = 'fk_audit_logs_user_id') then
    alter table audit_logs add constraint fk_audit_logs_user_id
      foreign key (user_id) references users (id) on delete set null;
  end if;
end $$;
