-- Users who have set a preference to a value.
-- depends: user_preferences
-- uses: idx_user_preferences_gin

select p.user_id
  from user_preferences p
 where p.preferences @> '{"theme": "dark"}';
