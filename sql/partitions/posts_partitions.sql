-- A partition of posts for each month (UTC), from the earliest there is to twelve months ahead. Gaps are
-- closed, and rows that already lie in the default partition move to their month.
-- on: posts
-- ahead: 12

select b44.manage_partitions('posts', 'month', 12);
