-- The lines that sold a product, as they stand on the bill.
-- on: order_lines

create index if not exists idx_order_lines_product on order_lines (product_id, "order");
