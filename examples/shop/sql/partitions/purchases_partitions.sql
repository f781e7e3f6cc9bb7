-- A partition of purchases for each month (UTC), from the earliest there is to two months ahead.
-- on: purchases
-- ahead: 2

select b44.manage_partitions('purchases', 'month', 2);
