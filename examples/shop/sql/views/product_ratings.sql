-- What customers think of each product, in numbers.
-- depends: reviews

create materialized view if not exists product_ratings as
select r.product_id,
       count(*) as reviews,
       avg(r.stars) as stars
  from reviews r
 group by r.product_id;

create unique index if not exists idx_product_ratings_product on product_ratings (product_id);

comment on materialized view product_ratings is 'What customers think of each product, as of the last refresh';
comment on column product_ratings.product_id is 'The product';
comment on column product_ratings.reviews is 'How many reviews it has';
comment on column product_ratings.stars is 'Stars on average';
