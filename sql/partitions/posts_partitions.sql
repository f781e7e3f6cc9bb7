-- A partition of posts for each month (UTC), from the earliest there is to twelve months ahead. As the guide's
-- manage_partitions, but gaps are closed, and rows that already lie in the default partition move to their month.
-- on: posts
-- depends: partition_functions, drain_functions
-- ahead: 12

select base44_manage_partitions('posts', 'month', 12);
