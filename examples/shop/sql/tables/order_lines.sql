-- The lines of a purchase, in their order.

create table if not exists order_lines (
  id uuid primary key default gen_random_uuid(),
  purchase_id uuid not null,
  "order" integer not null,
  product_id uuid not null,
  quantity integer not null,
  unique (purchase_id, "order")
);

comment on table order_lines is 'The lines of a purchase';
comment on column order_lines.id is 'Identifier; made from the Base44 id for migrated lines';
comment on column order_lines.purchase_id is 'purchases.id';
comment on column order_lines."order" is 'Place of the line on the bill, from 1';
comment on column order_lines.product_id is 'What was bought';
comment on column order_lines.quantity is 'How many, 1 or more';
