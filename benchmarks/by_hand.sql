-- The same end state as `b44 migrate`, as a good engineer would write it once for psql: set-based, one session, PostgreSQL 17
-- or newer, only for exports of dialect 2026-06. It notes nothing of what it does, verifies nothing, cannot go on after an interruption, and
-- leaves HTML as it is, since nothing in the server can sanitize it.
--
--   psql "$URL" -v ON_ERROR_STOP=1 -v export=DIR -f by_hand.sql
--
-- With `-v row_by_row=1` posts are moved one by one instead, in batches.
\set QUIET on
\cd :export
set work_mem = '256MB';
set jit = off;
set timezone = 'UTC';
set client_min_messages = warning;
set maintenance_work_mem = '1GB';
set max_parallel_maintenance_workers = 4;

create schema migration;
create unlogged table s_user (username text, avatar_url text, bio text, verified text, last_login_at text, role text, id text,
  created_date text, updated_date text, created_by_id text, created_by text, is_sample text, email text, full_name text,
  disabled text, app_id text, is_service text, app_role text);
create unlogged table s_category (name text, slug text, description text, color text, sort_order text, active text, id text,
  created_date text, updated_date text, created_by_id text, created_by text, is_sample text);
create unlogged table s_post (n bigint generated always as identity, title text, content text, status text, publish_date text,
  tags text, category_id text, author_id text, view_count text, like_count text, id text, created_date text, updated_date text,
  created_by_id text, created_by text, is_sample text);
create unlogged table s_event (user_id text, title text, event_date text, cancelled text, id text, created_date text,
  updated_date text, created_by_id text, created_by text, is_sample text);
create unlogged table s_preference (user_id text, preferences text, id text, created_date text, updated_date text,
  created_by_id text, created_by text, is_sample text);
create unlogged table s_session (user_id text, session_data text, expires_at text, id text, created_date text,
  updated_date text, created_by_id text, created_by text, is_sample text);
create unlogged table s_audit (table_name text, record_id text, action text, old_values text, new_values text, user_id text,
  "timestamp" text, id text, created_date text, updated_date text, created_by_id text, created_by text, is_sample text);
\copy s_user from 'User_export.csv' (format csv, header, force_null *)
\copy s_category from 'Category_export.csv' (format csv, header, force_null *)
\copy s_post (title, content, status, publish_date, tags, category_id, author_id, view_count, like_count, id, created_date, updated_date, created_by_id, created_by, is_sample) from 'Post_export.csv' (format csv, header, force_null *)
\copy s_event from 'Event_export.csv' (format csv, header, force_null *)
\copy s_preference from 'UserPreference_export.csv' (format csv, header, force_null *)
\copy s_session from 'UserSession_export.csv' (format csv, header, force_null *)
\copy s_audit from 'AuditLog_export.csv' (format csv, header, force_null *)

create unlogged table rejects (entity text, reason text, record jsonb);

create function to_id(t text) returns uuid language sql immutable
return case when length(t) = 24 then
    case when translate(t, '0123456789abcdef', '') = '' then (substr(t, 1, 12) || '8' || substr(t, 13, 3) || '8' || substr(t, 16, 9) || '000b44')::uuid
    else md5(t)::uuid end
  when length(t) = 36 and pg_input_is_valid(t, 'uuid') then t::uuid
  when t <> '' then md5(t)::uuid end;
create function to_time(t text) returns timestamptz language sql stable
return case when t ~ '^\d{4}-' and pg_input_is_valid(t, 'timestamptz') then t::timestamptz end;
create function to_bool(t text) returns boolean language sql immutable
return case when pg_input_is_valid(t, 'boolean') then t::boolean end;
create function unguarded(t text) returns text language sql immutable
return case when t ~ '^''[=+@-]' then substr(t, 2) else t end;

\ir ../b44_assets/runtime/b44/schema.sql
\ir ../b44_assets/runtime/b44/upgrade_from_0_1.sql
\ir ../b44_assets/runtime/b44/migration_state.sql
\ir ../b44_assets/runtime/b44/text_functions.sql
\ir ../b44_assets/runtime/b44/parser_functions.sql
\ir ../b44_assets/runtime/b44/identifier_functions.sql
\ir ../b44_assets/runtime/b44/search_functions.sql
\ir ../b44_assets/runtime/b44/standard_role_functions.sql
\ir ../b44_assets/runtime/b44/grant_functions.sql
\ir ../b44_assets/runtime/b44/trigger_functions.sql
\ir ../b44_assets/runtime/b44/audit_functions.sql
\ir ../b44_assets/runtime/b44/view_functions.sql
\ir ../b44_assets/runtime/b44/partition_period_functions.sql
\ir ../b44_assets/runtime/b44/partition_lock_functions.sql
\ir ../b44_assets/runtime/b44/partition_table_functions.sql
\ir ../b44_assets/runtime/b44/partition_row_functions.sql
\ir ../b44_assets/runtime/b44/partition_functions.sql
\ir ../b44_assets/runtime/b44/drain_copy_functions.sql
\ir ../b44_assets/runtime/b44/drain_swap_functions.sql
\ir ../b44_assets/runtime/b44/drain_functions.sql
\ir ../sql/functions/slug_functions.sql
\ir ../sql/tables/users.sql
\ir ../sql/tables/categories.sql
\ir ../sql/tables/post_slugs.sql
\ir ../sql/tables/posts.sql
\ir ../sql/tables/events.sql
\ir ../sql/tables/user_preferences.sql
\ir ../sql/tables/user_sessions.sql
\ir ../sql/partitions/user_sessions_partitions.sql
\ir ../sql/tables/audit_logs.sql

-- Users.
create unlogged table t_user as
select distinct on (id) *, lower(trim(email)) as address, to_time(created_date) as created, to_time(updated_date) as updated
  from s_user order by id, to_time(updated_date) desc nulls last;
alter table t_user add reason text;
update t_user set reason = case
  when id is null then 'missing_id' when address is null then 'missing_email'
  when address !~ '^[a-z0-9._%+-]+@[a-z0-9.-]+\.[a-z]{2,}$' then 'invalid_email'
  when created_date is not null and created is null or updated_date is not null and updated is null
    or last_login_at is not null and to_time(last_login_at) is null or verified is not null and to_bool(verified) is null
    or disabled is not null and to_bool(disabled) is null then 'invalid' end;
update t_user u set reason = 'duplicate_email' from (
  select id, row_number() over (partition by address order by created, id) as place from t_user where reason is null) d
 where d.id = u.id and d.place > 1;
insert into rejects select 'users', reason, to_jsonb(t_user) from t_user where reason is not null;
insert into users (id, email, username, display_name, avatar_url, role, email_verified, active, last_login_at, created_at, updated_at)
select to_id(id), address,
       wanted || case when row_number() over w > 1 then '-' || row_number() over w else '' end,
       trim(full_name), case when avatar_url ~ '^https?://' then avatar_url end,
       case lower(trim(role)) when 'superuser' then 'admin' when 'admin' then 'admin' when 'editor' then 'moderator'
         when 'moderator' then 'moderator' when 'guest' then 'guest' else 'user' end,
       coalesce(to_bool(verified), false), not coalesce(to_bool(disabled), false), to_time(last_login_at), created, coalesce(updated, created)
  from (select *, coalesce(lower(trim(unguarded(username))), split_part(address, '@', 1)) as wanted from t_user where reason is null) u
window w as (partition by wanted order by username is null, created, id);

-- Categories.
create unlogged table t_category as
select distinct on (id) *, to_time(created_date) as created from s_category order by id, to_time(updated_date) desc nulls last;
insert into categories (id, name, slug, description, color, sort_order, active, created_at, updated_at, created_by)
select distinct on (trim(name)) to_id(c.id), trim(name), coalesce(trim(slug), b44.slug(name)), description,
       case when color ~ '^#[0-9A-Fa-f]{6}$' then color end, coalesce(sort_order::int, 0), coalesce(to_bool(c.active), true),
       created, coalesce(to_time(updated_date), created), coalesce(u.id, '00000000-0000-8000-8000-000000000b44')
  from t_category c left join users u on u.id = to_id(c.created_by_id)
 where c.id is not null and name is not null and created is not null
   and (sort_order is null or pg_input_is_valid(sort_order, 'integer')) and (c.active is null or to_bool(c.active) is not null)
 order by trim(name), created, c.id;

-- Posts: each version of an id once, then typed, then judged.
create unlogged table t_post as
select n, to_id(p.id) as id, author.id as user_id, trim(unguarded(p.title)) as title, status = 'published' as published,
       to_time(publish_date) as published_at,
       case when p.tags is null then '{}'
            when left(p.tags, 1) <> '[' then array_remove(regexp_split_to_array(trim(both ', ' from p.tags), '\s*,\s*'), '')
            when p.tags is json array then array(select trim(t) from jsonb_array_elements_text(p.tags::jsonb) t where trim(t) <> '') end as tags,
       category.id as category_id,
       case when view_count is null then 0 when pg_input_is_valid(view_count, 'integer') then view_count::int end as view_count,
       case when like_count is null then 0 when pg_input_is_valid(like_count, 'integer') then like_count::int end as like_count,
       coalesce(to_time(p.created_date), case when p.created_date is null then to_time(p.updated_date) end) as created_at,
       coalesce(to_time(p.updated_date), case when p.updated_date is null then to_time(p.created_date) end) as updated_at,
       coalesce(creator.id, author.id) as created_by,
       length(content) as length, publish_date
  from s_post p
  left join users author on author.id = to_id(coalesce(p.author_id, p.created_by_id))
  left join users creator on creator.id = to_id(p.created_by_id)
  left join categories category on category.id = to_id(p.category_id);
delete from t_post t using (
  select n, row_number() over (partition by id order by updated_at desc nulls last, n) as place from t_post where id is not null) v
 where v.n = t.n and v.place > 1;
insert into rejects
select 'posts', concat_ws(',', case when t.id is null then 'missing_id' end, case when t.user_id is null then 'orphan_user' end,
         case when coalesce(t.title, '') = '' then 'missing_title' end, case when length(t.title) > 255 then 'title_too_long' end,
         case when coalesce(t.length, 0) <= 10 then 'short_content' end, case when t.tags is null then 'invalid:tags' end,
         case when t.view_count is null or t.like_count is null or t.created_at is null or t.updated_at is null then 'invalid' end),
       to_jsonb(p)
  from t_post t join s_post p using (n)
 where t.id is null or t.user_id is null or coalesce(t.title, '') = '' or length(t.title) > 255 or coalesce(t.length, 0) <= 10
    or t.tags is null or t.view_count is null or t.like_count is null or t.created_at is null or t.updated_at is null
    or t.publish_date is not null and t.published_at is null;
create unlogged table named as
select n, base || case when place > 1 then '-' || place else '' end as slug
  from (select n, base, row_number() over (partition by base order by created_at, id) as place
          from (select *, coalesce(b44.slug(title), 'post') as base from t_post) b) p;
select format('create table %I partition of posts for values from (%L) to (%L)',
         to_char(m, '"posts_"YYYY_MM'), m, m + interval '1 month')
  from (select distinct date_trunc('month', created_at) as m from t_post where created_at is not null) months order by m \gexec
\if :{?row_by_row}
\ir row_by_row.sql
\else
begin;
select set_config('b44.migrating', pg_current_xact_id()::text, true);
insert into posts (id, user_id, title, content, slug, published, published_at, tags, category_id, view_count, like_count,
  created_at, updated_at, created_by)
select t.id, user_id, t.title, unguarded(content), slug, coalesce(published, false), case when published then coalesce(published_at, created_at) end, t.tags,
       t.category_id, t.view_count, t.like_count, created_at, updated_at, t.created_by
  from t_post t join s_post p using (n) join named using (n)
 where t.id is not null and t.user_id is not null and t.title <> '' and length(t.title) <= 255 and t.length > 10
   and t.tags is not null and t.view_count is not null and t.like_count is not null and created_at is not null
   and updated_at is not null and (t.publish_date is null or t.published_at is not null);
commit;
\endif

-- The rest.
insert into events (id, user_id, title, event_date, cancelled, created_at, updated_at, created_by)
select distinct on (u.id, (to_time(event_date))::date, case when cancelled = 'true' then e.id end)
       to_id(e.id), u.id, trim(unguarded(title)), to_time(event_date), coalesce(to_bool(cancelled), false), to_time(e.created_date),
       coalesce(to_time(updated_date), to_time(e.created_date)), coalesce(c.id, '00000000-0000-8000-8000-000000000b44')
  from (select distinct on (id) * from s_event order by id, to_time(updated_date) desc nulls last) e
  join users u on u.id = to_id(e.user_id)
  left join users c on c.id = to_id(e.created_by_id)
 where e.id is not null and to_time(event_date) is not null and to_time(e.created_date) is not null
   and (cancelled is null or to_bool(cancelled) is not null)
 order by 2, (to_time(event_date))::date, case when cancelled = 'true' then e.id end, to_time(event_date);
insert into user_preferences
select distinct on (u.id) u.id, coalesce(preferences::jsonb, '{}'), to_time(created_date), coalesce(to_time(updated_date), to_time(created_date))
  from s_preference p join users u on u.id = to_id(p.user_id)
 where p.id is not null and (preferences is null or preferences is json) and to_time(created_date) is not null
 order by u.id, to_time(updated_date) desc;
insert into user_sessions
select distinct on (s.id) to_id(s.id), u.id, session_data::jsonb, to_time(created_date), to_time(expires_at)
  from s_session s join users u on u.id = to_id(s.user_id)
 where s.id is not null and (session_data is null or session_data is json) and to_time(expires_at) is not null
   and to_time(created_date) is not null;
select format('create table %I partition of audit_logs for values from (%L) to (%L)', to_char(y, '"audit_logs_"YYYY'), y, y + interval '1 year')
  from (select distinct date_trunc('year', to_time("timestamp")) as y from s_audit where to_time("timestamp") is not null) years \gexec
insert into audit_logs
select distinct on (a.id) to_id(a.id), table_name, to_id(record_id), action, old_values::jsonb, new_values::jsonb, u.id, to_time("timestamp")
  from s_audit a left join users u on u.id = to_id(a.user_id)
 where a.id is not null and to_time("timestamp") is not null and (old_values is null or old_values is json)
   and (new_values is null or new_values is json);

-- What stands on the tables.
\ir ../sql/functions/partition_functions.sql
\ir ../sql/functions/post_functions.sql
\ir ../sql/functions/statistics_functions.sql
\ir ../sql/functions/reading_functions.sql
\ir ../sql/partitions/posts_partitions.sql
\ir ../sql/partitions/audit_logs_partitions.sql
\ir ../sql/indexes/audit_logs_lookup_indexes.sql
\ir ../sql/indexes/categories_listing_indexes.sql
\ir ../sql/indexes/events_lookup_indexes.sql
\ir ../sql/indexes/posts_composite_indexes.sql
\ir ../sql/indexes/posts_covering_indexes.sql
\ir ../sql/indexes/posts_equality_indexes.sql
\ir ../sql/indexes/posts_foreign_key_indexes.sql
\ir ../sql/indexes/posts_month_indexes.sql
\ir ../sql/indexes/posts_partial_indexes.sql
\ir ../sql/indexes/posts_search_indexes.sql
\ir ../sql/indexes/posts_tags_indexes.sql
\ir ../sql/indexes/user_preferences_document_indexes.sql
\ir ../sql/indexes/user_sessions_lookup_indexes.sql
\ir ../sql/indexes/users_account_indexes.sql
\ir ../sql/constraints/audit_logs_constraints.sql
\ir ../sql/constraints/categories_constraints.sql
\ir ../sql/constraints/events_constraints.sql
\ir ../sql/constraints/posts_constraints.sql
\ir ../sql/constraints/user_preferences_constraints.sql
\ir ../sql/constraints/user_sessions_constraints.sql
\ir ../sql/constraints/users_constraints.sql
\ir ../sql/triggers/categories_triggers.sql
\ir ../sql/triggers/posts_triggers.sql
\ir ../sql/triggers/users_triggers.sql
\ir ../sql/policies/audit_logs_policies.sql
\ir ../sql/policies/posts_policies.sql
\ir ../sql/policies/user_preferences_policies.sql
\ir ../sql/policies/user_sessions_policies.sql
\ir ../sql/policies/users_policies.sql
\ir ../sql/views/user_names.sql
\ir ../sql/views/user_post_stats.sql
analyze;
