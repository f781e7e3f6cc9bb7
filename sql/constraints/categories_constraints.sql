-- What every category must be. There is no
-- unique_active_slug, since categories_slug_key is unique among all categories, active or not.
-- on: categories
-- depends: users

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'categories'::regclass and conname = 'chk_categories_color') then
    alter table categories add constraint chk_categories_color check (color ~ '^#[0-9A-Fa-f]{6}$');
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'categories'::regclass and conname = 'chk_categories_slug') then
    alter table categories add constraint chk_categories_slug check (slug <> '' and slug = btrim(slug));
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'categories'::regclass and conname = 'chk_categories_finite_times') then
    alter table categories add constraint chk_categories_finite_times
      check (isfinite(created_at) and isfinite(updated_at));
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'categories'::regclass and conname = 'fk_categories_created_by') then
    alter table categories add constraint fk_categories_created_by foreign key (created_by) references users (id);
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'categories'::regclass and conname = 'fk_categories_updated_by') then
    alter table categories add constraint fk_categories_updated_by foreign key (updated_by) references users (id);
  end if;
end $$;
