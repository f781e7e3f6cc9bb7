-- Names and pictures of users, for all who may read posts. It reads with its owner's rights: of accounts one sees one's own only.
-- depends: users

create or replace view user_names as
select u.id, u.username, u.display_name, u.avatar_url
  from users u;

comment on view user_names is 'Names and pictures of users';
comment on column user_names.id is 'The user';
comment on column user_names.username is 'Public name';
comment on column user_names.display_name is 'Full name';
comment on column user_names.avatar_url is 'Picture';
