-- What the full-text search reads of a text: a bounded part of it, without what no one searches for. Indexes and queries use
-- the same function, so that no text is too long for an index, whoever writes it.
-- depends: b44/upgrade_from_0_1

-- An image that stands in the text itself (`data:` URL) is no words, and would be the most of its text. Regular expressions
-- hold a text four times over, hence the first bound; the first test is there for speed: few texts have such an image.
create or replace function b44.searchable(value text) returns text
language sql immutable parallel safe
return left(
  case
    when strpos(value, 'data:') > 0 or strpos(value, ';base64,') > 0 then
      regexp_replace(left(value, 10000000),
        '\mdata:([a-z0-9.+-]+/[a-z0-9.+*-]+|;)[^\s,"''<>()]*,[^\s"''<>()\\]*', ' ', 'gi')
    else value
  end, 100000);

-- 100,000 characters: a tsvector holds 1 MB, and words that differ, each of characters of four bytes and joined by hyphens
-- (which are kept whole and in parts), come to 0.9 MB of it, the most that was found. Positions end at 16,383 words, which is
-- about as much English text.
create or replace function base44_search(value text) returns tsvector
language sql immutable parallel safe
return to_tsvector('pg_catalog.english'::regconfig, b44.searchable(value));

comment on function b44.searchable(text) is 'What the search reads of a text: the first 100,000 characters, without data: URLs';
comment on function base44_search(text) is 'The English words of a text for the full-text search; of any length, what the search reads of it';
