-- Who did it; an entry outlives its user, and then has none. Ours: the guide has no foreign key here.
-- on: audit_logs
-- depends: users

alter table audit_logs add constraint chk_audit_logs_finite_times check (isfinite(timestamp));
alter table audit_logs add constraint fk_audit_logs_user_id
  foreign key (user_id) references users (id) on delete set null;
