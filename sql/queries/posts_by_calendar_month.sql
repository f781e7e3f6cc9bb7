-- Posts of a calendar month, asked for by year and month as idx_posts_month is made. No partition is left out:
-- the planner cannot tell what year and month say about created_at; prefer posts_of_month.
-- depends: posts
-- uses: idx_posts_month

select p.id, p.title, p.created_at
  from posts p
 where extract(year from p.created_at at time zone 'UTC') = 2024
   and extract(month from p.created_at at time zone 'UTC') = 1;
