-- What every post must be. As in the guide, but for chk_posts_publish_permissions: a CHECK must not read another table,
-- so it is a trigger (posts_triggers). And ours: an infinite time lies in no month and on no page, and a title's length is that
-- with the spaces around it.
-- on: posts
-- depends: users, categories

alter table posts add constraint chk_posts_title_length
  check (length(trim(title)) >= 1 and length(title) <= 255);
alter table posts add constraint chk_posts_published_at
  check ((published = false and published_at is null) or (published = true and published_at is not null));
alter table posts add constraint chk_posts_finite_times
  check (isfinite(created_at) and isfinite(updated_at) and isfinite(published_at));
alter table posts add constraint fk_posts_user_id foreign key (user_id) references users (id) on delete cascade;
alter table posts add constraint fk_posts_category_id
  foreign key (category_id) references categories (id) on delete set null;
alter table posts add constraint fk_posts_created_by foreign key (created_by) references users (id);
alter table posts add constraint fk_posts_updated_by foreign key (updated_by) references users (id);
