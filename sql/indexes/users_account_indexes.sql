-- Users by age, by role and by who made or changed them. There are no idx_users_email, idx_users_email_active
-- and idx_users_username: users_email_key and users_username_key are unique among all users, not only
-- active ones, and serve every look-up that these would. The last two are ours: without them the deletion of a user
-- reads the whole table for each foreign key.
-- on: users

create index if not exists idx_users_created_at on users (created_at desc);
create index if not exists idx_users_role on users (role) where active = true;
create index if not exists idx_users_created_by on users (created_by) where created_by is not null;
create index if not exists idx_users_updated_by on users (updated_by) where updated_by is not null;
