-- What is written by the shop is held to its rules.
-- on: reviews
-- depends: review_functions, products

create or replace trigger trg_reviews_only_for_sale before insert on reviews
  for each row execute function only_for_sale();
