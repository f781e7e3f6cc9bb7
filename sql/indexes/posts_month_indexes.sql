-- Posts by calendar month. A form without a zone depends on the session's time zone, which an index must not, so PostgreSQL
-- refuses it; months here are those of UTC, as of the partitions.
-- on: posts

create index if not exists idx_posts_month on posts (
  extract(year from created_at at time zone 'UTC'), extract(month from created_at at time zone 'UTC')
);
