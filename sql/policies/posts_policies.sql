-- Published posts are everybody's to read, drafts their authors'; authors write their own posts. Whom the application acts for, and as
-- what, it says itself (b44.acting_user, b44.acting_role).
-- on: posts

alter table posts enable row level security;

drop policy if exists posts_published on posts;
create policy posts_published on posts for select using (published);

drop policy if exists posts_own on posts;
create policy posts_own on posts using (user_id = (select b44.acting_user()));

drop policy if exists posts_of_all on posts;
create policy posts_of_all on posts using ((select b44.acts_for_all() or b44.acting_role() in ('admin', 'moderator')));
