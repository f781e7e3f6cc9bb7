"""What becomes of a Post: its rules, one by one, then all of them against plain Python."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import nh3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.database.test_mapping_users import (
    BLANKS,
    EXPORTED_AT,
    WHITE_SPACE,
    Expected,
    boolean,
    check_against_model,
    of_object_id,
    oftener,
    renamed,
    superseded_and_repeated,
    text_of,
    time_of,
    trimmed,
    with_repeats,
)
from tests.helpers.mapping_cases import Case, each, refused
from tests.helpers.records import Record, moment, object_id, post, user, uuid_of
from tests.helpers.target import SYSTEM_USER, Outcome, Target

AUTHOR, OTHER, NOBODY = object_id(1), object_id(2), object_id(3)
CATEGORY, REFUSED_CATEGORY = object_id(11), object_id(12)
PEOPLE = [user(1), user(2), user(3, email="nothing")]
CATEGORIES = [
    {"id": CATEGORY, "name": "News"},
    {"id": REFUSED_CATEGORY, "name": " "},
]

# -- one record, one rule ----------------------------------------------------------------------------------------------

CASES = [
    Case("a record with no more than it must have is sound", {"title": "The least"}, {
        "user_id": uuid_of(AUTHOR), "title": "The least", "content": "Long enough.", "excerpt": "Long enough.",
        "slug": "the-least", "published": False, "published_at": None, "tags": [], "category_id": None,
        "view_count": 0, "like_count": 0, "created_by": uuid_of(AUTHOR), "updated_by": None}),
    *[Case(f"an id that is {name} is missing", {"id": value}, reasons=("missing_id",)) for name, value in BLANKS.items()],

    # Author and creator
    Case("user_id is the author", {"user_id": OTHER}, {"user_id": uuid_of(OTHER), "created_by": uuid_of(OTHER)}),
    Case("author_id is the author, too", {"user_id": None, "author_id": OTHER}, {"user_id": uuid_of(OTHER)}),
    Case("of two authors user_id counts and the other is kept", {"author_id": OTHER}, {"user_id": uuid_of(AUTHOR)},
         unmapped={"author_id": OTHER}),
    *[Case(f"without an author ({name}) it is the creator", {"user_id": value, "created_by_id": OTHER},
           {"user_id": uuid_of(OTHER), "created_by": uuid_of(OTHER)}) for name, value in BLANKS.items()],
    Case("the creator need not be the author", {"created_by_id": OTHER},
         {"user_id": uuid_of(AUTHOR), "created_by": uuid_of(OTHER)}),
    *[Case(f"the creator {value} is unknown and kept; the author stands in", {"created_by_id": value},
           {"created_by": uuid_of(AUTHOR)}, unmapped={"created_by_id": value})
      for value in (NOBODY, "service_0c0d-1", "null", "anonymous", SYSTEM_USER)],
    *[Case(f"without an id it is the user with the creator's address: {value}", {"user_id": None, "created_by": value},
           {"user_id": uuid_of(OTHER), "created_by": uuid_of(OTHER)}) for value in ("user2@example.com", " User2@Example.COM", OTHER)],
    Case("the creator's address counts where there is an author, too", {"created_by": "user2@example.com"},
         {"user_id": uuid_of(AUTHOR), "created_by": uuid_of(OTHER)}),
    Case("the creator's id goes before the address", {"user_id": None, "created_by_id": AUTHOR, "created_by": "user2@example.com"},
         {"user_id": uuid_of(AUTHOR), "created_by": uuid_of(AUTHOR)}, unmapped={"created_by": "user2@example.com"}),
    refused("an address of nobody leaves an orphan", "orphan_user", user_id=None, created_by="nobody@example.com"),
    refused("an author is named by id, not by address", "orphan_user", user_id="user2@example.com"),
    refused("an author that was refused leaves an orphan", "orphan_user", user_id=NOBODY),
    refused("an author that is no user leaves an orphan, though the creator is one", "orphan_user",
            user_id="guest_1", created_by_id=OTHER),
    refused("nobody at all leaves an orphan", "orphan_user", user_id=" ", created_by_id=None),
    refused("a creator that is no user leaves an orphan", "orphan_user", user_id=None, created_by_id="service_1"),
    refused("the system user is nobody's author", "orphan_user", user_id=SYSTEM_USER),

    # Title and slug
    Case("a title is trimmed", {"title": " \u00a0A  trimmed title\n"}, {"title": "A  trimmed title", "slug": "a-trimmed-title"}),
    *[Case(f"a title that is {name} is missing", {"title": value}, reasons=("missing_title",))
      for name, value in BLANKS.items()],
    Case("a title of 255 characters is short enough", {"title": " " + "é" * 255 + " "}, {"title": "é" * 255}),
    refused("a title of 256 characters is too long", "title_too_long", title="é" * 256),
    Case("a slug keeps letters and digits of any script", {"title": "¿Dónde está №1, 日本?"}, {"slug": "dónde-está-1-日本"}),
    Case("a title without any has the slug post", {"title": "?!"}, {"slug": "post"}),
    Case("an exported slug is kept", {"title": "Slug", "slug": "My-Slug"}, {"slug": "slug"}, unmapped={"slug": "My-Slug"}),

    # Content
    Case("content without < and & is carried over byte for byte", {"content": "  a\tb\r\n\u00a0 c > 'd' \"e\" ü \u200b "},
         {"content": "  a\tb\r\n\u00a0 c > 'd' \"e\" ü \u200b "}),
    Case("harmless HTML stays", {"content": "<p>Hello <b>you</b> &amp; me</p>"},
         {"content": "<p>Hello <b>you</b> &amp; me</p>"}),
    Case("unsafe HTML is cleaned and is a repair", {"content": "<p onclick='x()'>Hello<script>evil()</script> you</p>"},
         {"content": "<p>Hello you</p>"},
         repairs=(("content", "<p onclick='x()'>Hello<script>evil()</script> you</p>", "<p>Hello you</p>"),)),
    *[Case(f"content in which HTML sees no tag is carried over: {text}", {"content": text}, {"content": text})
      for text in ("R&D at AT&T &copy &amp;", "if (a < b && c <= d)", "1 <2, 3 <- 4 <<= 5 <é <$ <", "<%= erb %> & <3 <3")],
    *[Case(f"content in which it sees one is HTML as a whole: {text}", {"content": text}, {"content": safe},
           repairs=(("content", text, safe),))
      for text, safe in (("R&D is <b>great</b>", "R&amp;D is <b>great</b>"), ("1 < 2 and more <br>", "1 &lt; 2 and more <br>"),
                         ("comments <!-- x --> go away", "comments  go away"),
                         ("<?php echo 'long' ?> goes, too, all of it", " goes, too, all of it"),
                         ("</p> ends nothing here", "<p></p> ends nothing here"))],
    *[Case(f"an address that runs something is cleaned away: {opened}", {"content": f'<{opened}="JavaScript:x()">long enough</{name}>'},
           {"content": safe}, repairs=(("content", f'<{opened}="JavaScript:x()">long enough</{name}>', safe),))
      for name, opened, safe in (("q", "q cite", "<q>long enough</q>"), ("del", "del cite", "<del>long enough</del>"),
                                 ("a", "a href", '<a rel="noopener noreferrer">long enough</a>'))],
    refused("content that is nothing but a script is short", "short_content", content="<script>0123456789</script>"),
    refused("content of 10 characters is short", "short_content", content="0123456789"),
    refused("content of 10 characters after cleaning is short", "short_content", content="<i x=''>012</i>"),
    Case("content of 11 characters is long enough", {"content": "日本語日本語日本語日本"}, {"content": "日本語日本語日本語日本"}),
    *[Case(f"content that is {name} is short", {"content": value}, reasons=("short_content",))
      for name, value in {**BLANKS, "many spaces": " " * 40}.items()],
    Case("an excerpt is the first 200 characters", {"content": "x" * 201}, {"excerpt": "x" * 200 + "..."}),

    # Publication
    *[Case(f"published {value!r} is published at its creation", {"published": value, "created_date": "2026-01-02"},
           {"published": True, "published_at": moment("2026-01-02")}) for value in (True, "yes", "T", "1")],
    *[Case(f"published {value!r} is not", {"published": value}, {"published": False, "published_at": None})
      for value in (False, "no", "0", None, " ")],
    *[Case(f"the status {value!r} is published", {"status": value}, {"published": True})
      for value in ("published", " Published ", "PUBLISHED")],
    Case("a draft is not published", {"status": "draft"}, {"published": False}),
    *[Case(f"the status {value!r} is not published, and kept", {"status": value}, {"published": False},
           unmapped={"status": value}) for value in ("archived", "publish", "unpublished", " Review")],
    Case("either says that it is published; what says otherwise is kept", {"status": "published", "published": "false"},
         {"published": True}, unmapped={"published": "false"}),
    Case("published counts though the status says draft, which is kept", {"status": "Draft", "published": "true"},
         {"published": True}, unmapped={"status": "Draft"}),
    refused("published that is no boolean is invalid", "invalid:published", published="soon"),
    Case("the publish date is when it was published", {"status": "published", "publish_date": "2026-05-10T08:30"},
         {"published_at": moment("2026-05-10T08:30")}),
    Case("published_at is the publish date, too", {"published": True, "published_at": "2026-05-10T08:30:00.000Z"},
         {"published_at": moment("2026-05-10T08:30")}),
    Case("a publish date of what is not published is kept", {"publish_date": "2026-05-10"},
         {"published": False, "published_at": None}, unmapped={"publish_date": "2026-05-10"}),
    refused("a publish date that is none is invalid, published or not", "invalid:published_at", publish_date="tomorrow"),

    # Tags
    *[Case(f"tags that are {name} are none", {"tags": value}, {"tags": []}) for name, value in {**BLANKS, "[]": []}.items()],
    Case("tags may be an array", {"tags": ["machine learning", " news ", "", None, 3, True]},
         {"tags": ["machine learning", "news", "3", "true"]}),
    Case("tags may be the text of an array", {"tags": ' ["a,b", "C#"] '}, {"tags": ["a,b", "C#"]}),
    Case("tags may be separated by commas", {"tags": "machine learning,  news,, C# ,"},
         {"tags": ["machine learning", "news", "C#"]}),
    Case("tags that repeat stay", {"tags": "b,a,b"}, {"tags": ["b", "a", "b"]}),
    *[refused(f"tags {value!r} are invalid", "invalid:tags", tags=value) for value in ("[broken", '["a"', "[]x", '[1,]')],

    *[Case(f"tags may be the text of a PostgreSQL array: {text}", {"tags": text}, {"tags": tags})
      for text, tags in (("{a,b c}", ["a", "b c"]), ('{"a,b", c d ,"q\\"x",NULL,"NULL",}', ["a,b", "c d", 'q"x', "NULL"]),
                         ("{}", []), ("{{a,b},{c}}", ["a", "b", "c"]), ('{"a b}c"}', ["a b}c"]))],
    *[Case(f"tags in braces that are no array are separated by commas: {text}", {"tags": text}, {"tags": tags})
      for text, tags in (("{a,b", ["{a", "b"]), ("{a},{b}", ["{a}", "{b}"]), ('{"a": 1}', ['{"a": 1}']), ("{{{a}}}", ["{{{a}}}"]))],
    Case("what is no text in an array of tags is a tag as written", {"tags": '[1.50, {"a":1,"a":2}, ["n", 2], null, false]'},
         {"tags": ["1.50", '{"a":1,"a":2}', '["n", 2]', "false"]}),

    # Category and counters
    Case("a migrated category stays", {"category_id": CATEGORY}, {"category_id": uuid_of(CATEGORY)}),
    *[Case(f"the category {value} is unknown, which is a repair", {"category_id": value}, {"category_id": None},
           repairs=(("category_id", value, None),)) for value in (REFUSED_CATEGORY, object_id(99), "news", "7")],
    *[Case(f"a category that is {name} is none", {"category_id": value}, {"category_id": None})
      for name, value in BLANKS.items()],
    *[Case(f"the counter {value!r} is {number}", {"view_count": value, "like_count": value},
           {"view_count": number, "like_count": number})
      for value, number in ((0, 0), (2147483647, 2147483647), ("12", 12), (" 7 ", 7), ("3.0", 3), (-1, -1), (None, 0), ("", 0))],
    *[refused(f"the counter {value!r} is invalid", "invalid:view_count", "invalid:like_count", view_count=value, like_count=value)
      for value in (2147483648, "many", 1.5, "1e3", True, "٣")],

    # Times
    Case("created_date is the creation time", {"created_date": "2026-03-26T23:25:53.950000"},
         {"created_at": moment("2026-03-26T23:25:53.95"), "updated_at": moment("2026-03-26T23:25:53.95")}),
    Case("created_at is the creation time, too", {"created_at": "2026-06-25 18:43:12"},
         {"created_at": moment("2026-06-25T18:43:12")}),
    Case("without a creation time it is the ObjectId's", {"id": "66000000" + "b" * 16, "updated_date": "2026-01-01"},
         {"created_at": datetime.fromtimestamp(0x66000000, UTC), "updated_at": moment("2026-01-01")}),
    Case("without an ObjectId it is the time of the update", {"id": "custom-1", "updated_at": "2026-01-01"},
         {"created_at": moment("2026-01-01"), "updated_at": moment("2026-01-01")}),
    Case("without that it is the export's time", {"id": "custom-2"},
         {"created_at": EXPORTED_AT, "updated_at": EXPORTED_AT}),
    refused("a creation time that is none is invalid", "invalid:created_at", created_date="31.12.2025"),
    refused("a time of the update that is none is invalid", "invalid:updated_at", updated_date="2026-02-30"),

    Case("a tag of 255 characters is short enough", {"tags": [f" {'é' * 255} ", "b"]}, {"tags": ["é" * 255, "b"]}),
    Case("many tags may be long together", {"tags": ",".join(["a" * 200] * 9)}, {"tags": ["a" * 200] * 9}),
    refused("a tag of 256 characters is too long", "tag_too_long", tags=["a", "é" * 256]),
    refused("a tag among others with commas is too long", "tag_too_long", tags=f"a,{'x' * 6000},b"),

    # The rest
    Case("every field without a column is kept as exported",
         {"created_by": "Ann@Example.com", "is_sample": True, "cover": {"url": "x"}, "excerpt": "e", "blank": "\n"},
         unmapped={"created_by": "Ann@Example.com", "is_sample": "true", "cover": '{"url":"x"}', "excerpt": "e"}),
    refused("a record gets every reason that applies", "missing_id", "orphan_user", "title_too_long", "short_content",
            "invalid:published", "invalid:published_at", "invalid:tags", "invalid:view_count", "invalid:like_count",
            "invalid:created_at", "invalid:updated_at", id="", user_id="x", title="x" * 256, content="<b>x</b>",
            published="x", publish_date="x", tags="[", view_count="x", like_count="x", created_date="x", updated_date="x"),
    refused("a blank record has every reason that blanks have", "missing_id", "orphan_user", "missing_title",
            "short_content", id=None, user_id=None, title=None, content=None),
]  # fmt: skip


def case_record(place: int, case: Case) -> Record:
    return {**post(1000 + place, title=f"Case {place}"), **case.fields}


@pytest.fixture(scope="module")
def outcome(shared_target: Target) -> Outcome:
    """All cases in one export."""
    shared_target.reset()
    records = [case_record(*both) for both in enumerate(CASES)]
    shared_target.migrate({"User": PEOPLE, "Category": CATEGORIES, "Post": records}, exported_at=EXPORTED_AT)
    return shared_target.outcome("posts")


@each(CASES)
def test_a_record_comes_out_by_its_rule(outcome: Outcome, place: int) -> None:
    CASES[place].check(outcome, place + 1, str(case_record(place, CASES[place])["id"]))


def test_cases_are_accounted_for(outcome: Outcome) -> None:
    account = outcome.account
    assert account["read"] == len(CASES)
    assert account["migrated"] == len(outcome.rows) == sum(not case.reasons for case in CASES)
    assert (account["unaccounted"], account["pending"], account["deduplicated"]) == (0, 0, 0)


# -- several records -----------------------------------------------------------------------------------------------------


def posts(target: Target, *records: Record) -> Outcome:
    target.migrate({"User": PEOPLE, "Post": records})
    return target.outcome("posts")


def test_of_several_versions_the_newest_update_wins(target: Target) -> None:
    found = posts(
        target,
        post(1, updated_date="2026-01-02", title="newest"),
        post(1, updated_date="2026-01-01", title="older", tags="["),
        post(1, updated_date="2026-01-02", title="newest"),
    )
    assert found.rows[object_id(1)]["title"] == "newest"
    assert found.reasons == {2: ["duplicate_id", "invalid:tags"]}
    assert found.account["deduplicated"] == 1


def slugs(target: Target, *records: Record) -> list[str]:
    found = posts(target, *records)
    assert found.reasons == {}
    return [found.rows[str(record["id"])]["slug"] for record in records]


def test_an_earlier_post_keeps_the_slug_and_later_ones_are_numbered(target: Target) -> None:
    days = {"2026-02-03": "news-3", "2026-01-01": "news", "2026-01-01T00:00:00.000001": "news-2"}
    records = [post(n, title="News!", created_date=day) for n, day in enumerate(days)]
    assert slugs(target, *records) == list(days.values())


def test_posts_made_at_one_time_go_by_id(target: Target) -> None:
    records = [post(n, title="News", created_date="2026-01-01") for n in (3, 1, 2)]
    assert slugs(target, *records) == ["news-3", "news", "news-2"]


def test_slugs_that_are_wanted_by_others_are_left_out(target: Target) -> None:
    titles = ["News", "news", "NEWS", "News 3", "News 2", "News 2"]
    assert slugs(target, *[post(n, title=title) for n, title in enumerate(titles)]) == [
        "news", "news-4", "news-5", "news-3", "news-2", "news-2-2",
    ]  # fmt: skip


def test_slugs_that_are_taken_in_the_new_system_are_left_out(target: Target) -> None:
    for slug in ("news", "news-3", "news-02"):
        target.run("insert into post_slugs values (%s, gen_random_uuid(), now())", slug)
    assert slugs(target, *[post(n, title="News") for n in range(3)]) == ["news-2", "news-4", "news-5"]


def test_a_numbered_slug_is_no_repair(target: Target) -> None:
    assert posts(target, post(1, title="News"), post(2, title="News")).repairs == {}


def test_a_refused_post_takes_no_slug(target: Target) -> None:
    found = posts(target, post(1, title="News", content=None), post(2, title="News"))
    assert found.rows[object_id(2)]["slug"] == "news"


def test_the_registry_holds_the_slug_of_every_post(target: Target) -> None:
    posts(target, post(1, title="News"), post(2, title="News"), post(3))
    assert target.all("select slug, post_id, post_created_at from post_slugs order by 1") == target.all(
        "select slug, id, created_at from posts order by 1"
    )
    assert target.one("select count(*) from post_slugs") == 3


@pytest.mark.parametrize(
    ("created_date", "partition"),
    [
        ("2024-01-31T23:59:59.999999", "posts_2024_01"),
        ("2024-02-01T00:00:00", "posts_2024_02"),
        ("2024-02-01T00:30:00+01:00", "posts_2024_01"),
        ("2024-12-31T22:00:00-03:00", "posts_2025_01"),
        ("2023-02-29T00:00:00Z", None),
    ],
)
def test_a_post_stands_in_the_partition_of_its_month_in_utc(
    target: Target, created_date: str, partition: str | None
) -> None:
    posts(target, post(1, created_date=created_date))
    assert target.all("select tableoid::regclass::text from posts") == ([(partition,)] if partition else [])


# -- all rules against a model that shares nothing with them -----------------------------------------------------------


def tags_of(value: object) -> list[str] | None:
    if isinstance(value, list):
        return [tag.strip(WHITE_SPACE) for tag in value if tag is not None and tag.strip(WHITE_SPACE)]  # pyright: ignore
    if (text := text_of(value)) is None:
        return []
    return None if text.startswith("[") else [t.strip(WHITE_SPACE) for t in text.split(",") if t.strip(WHITE_SPACE)]


def slug_of(title: str) -> str:
    letters = "".join(
        c if unicodedata.category(c)[0] in "LM" or c.isdecimal() else " "
        for c in unicodedata.normalize("NFC", title).lower()
    )
    return "-".join(letters.split()) or "post"


def number_of(value: str | None) -> int | None:
    return int(value) if value is not None and value.isdigit() else None


def expected_posts(records: Sequence[Record], people: set[str], categories: set[str]) -> Expected:
    """The rules for posts, record by record."""
    expected = Expected()
    older, repeated = superseded_and_repeated(records)
    expected.deduplicated = len(repeated)
    claims: list[tuple[datetime, int, str]] = []
    for number, record in enumerate(records, 1):
        if number in repeated:
            continue
        value = {name: None if isinstance(exported, list) else text_of(exported) for name, exported in record.items()}
        base44_id, title = trimmed(value.get("id")), trimmed(value.get("title"))
        exported, content = value.get("content"), value.get("content") or ""
        if re.search("<[a-zA-Z/!?]", content):
            content = nh3.clean(content)
        created, updated = time_of(value.get("created_date")), time_of(value.get("updated_date"))
        publish_date, tags = time_of(value.get("publish_date")), tags_of(record.get("tags"))
        creator = trimmed(value.get("created_by_id"))
        author = trimmed(value.get("user_id")) or creator
        is_published = bool(boolean(value.get("published"))) or (value.get("status") or "").lower() == "published"
        reasons = {
            "missing_id": base44_id is None,
            "duplicate_id": number in older,
            "orphan_user": author is None or uuid_of(author) not in people,
            "missing_title": title is None,
            "title_too_long": len(title or "") > 255,
            "short_content": len(content) <= 10,
            "invalid:published": value.get("published") is not None and boolean(value["published"]) is None,
            "invalid:published_at": value.get("publish_date") is not None and publish_date is None,
            "invalid:tags": tags is None,
            "tag_too_long": any(len(tag) > 255 for tag in tags or ()),
            "invalid:view_count": value.get("view_count") is not None and number_of(value["view_count"]) is None,
            "invalid:created_at": value.get("created_date") is not None and created is None,
            "invalid:updated_at": value.get("updated_date") is not None and updated is None,
        }
        if wrong := [reason for reason, applies in reasons.items() if applies]:
            expected.reasons[number] = wrong
            continue
        assert base44_id is not None and author is not None and title is not None
        key = uuid_of(base44_id)
        made = created or of_object_id(base44_id) or updated or EXPORTED_AT
        category = trimmed(value.get("category_id"))
        known_category = category is not None and uuid_of(category) in categories
        known_creator = creator is not None and uuid_of(creator) in people
        expected.rows[base44_id] = {
            "id": key,
            "user_id": uuid_of(author),
            "title": title,
            "content": content,
            "published": is_published,
            "published_at": (publish_date or made) if is_published else None,
            "tags": tags,
            "category_id": uuid_of(category or "") if known_category else None,
            "view_count": number_of(value.get("view_count")) or 0,
            "created_at": made,
            "updated_at": updated or made,
            "created_by": uuid_of(creator if known_creator and creator else author),
        }
        claims.append((made, UUID(key).int, base44_id))
        if content != exported:
            expected.repairs[base44_id].append(("content", exported, content))
        if category is not None and not known_category:
            expected.repairs[base44_id].append(("category_id", value["category_id"], None))
        kept: dict[str, str | None] = {}
        if creator is not None and not known_creator:
            kept["created_by_id"] = value["created_by_id"]
        if publish_date is not None and not is_published:
            kept["publish_date"] = value["publish_date"]
        status = (value.get("status") or "").lower()
        if status not in ("", "published", "draft") or (status == "draft" and is_published):
            kept["status"] = value["status"]
        if is_published and boolean(value.get("published")) is False:
            kept["published"] = value["published"]
        if kept:
            expected.unmapped[base44_id] = {name: text for name, text in kept.items() if text is not None}
    names = renamed([(key, slug_of(expected.rows[key]["title"])) for _, _, key in sorted(claims)])
    for base44_id, row in expected.rows.items():
        row["slug"] = names[base44_id]
    return expected


IDS = [object_id(n) for n in range(20, 28)] + ["custom-1", "0190a0b0-1111-7222-8333-444455556666"]
TIMES = ["2026-01-31T23:59:59.999999", "2026-02-01T00:00:00", "2026-02-01T00:30:00+01:00", "2025-12-31"]
POSTS = st.fixed_dictionaries(
    {
        "id": oftener(IDS, [f"{IDS[0]} ", "65ABCD" + IDS[1][6:], "65abcd" + IDS[1][6:], None, ""]),
        "title": oftener(
            ["News", " news!", "News 2", "news-3", "हिन्दी 日本"], [None, " ", "?", "x" * 256, "E\u0301" * 255]
        ),
        "content": oftener(
            [
                "Long enough.",
                "Salt & pepper & more",
                "1 < 2 && 3 > 2",
                "A&B <i>both</i>",
                "<p>Some text</p>",
                "  byte for byte \n",
            ],
            [None, "", "short", "<script>alert('long enough')</script>", "<b onclick=x>hello there</b>"],
        ),
        "user_id": oftener([AUTHOR, AUTHOR, OTHER], [NOBODY, None, " ", "guest_1", SYSTEM_USER]),
    },
    optional={
        "created_by_id": oftener([AUTHOR, OTHER], [NOBODY, "service_1", None, "null"]),
        "status": oftener(["published", "draft", "Published"], [None, "archived", ""]),
        "published": oftener([True, False], [None, "yes", "perhaps"]),
        "publish_date": oftener(TIMES, [None, "", "soon"]),
        "tags": st.one_of(
            st.sampled_from(["a b, c", " , ", "[broken", None, ""]),
            st.lists(st.sampled_from(["a b", " c ", "", None]), max_size=3),
        ),
        "category_id": oftener([CATEGORY], [REFUSED_CATEGORY, "x", None, " "]),
        "view_count": oftener([0, 7, "12"], [None, "", "many", 1.5]),
        "created_date": oftener(TIMES, [None, "", "2026-02-30"]),
        "updated_date": oftener(TIMES, [None, "", "soon"]),
    },
)


@pytest.mark.long
@settings(
    max_examples=6,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
@given(records=with_repeats(POSTS))
def test_posts_come_out_as_the_rules_say_whatever_collides(shared_target: Target, records: list[Record]) -> None:
    shared_target.reset()
    shared_target.migrate({"User": PEOPLE, "Category": CATEGORIES, "Post": records}, exported_at=EXPORTED_AT)
    expected = expected_posts(records, {uuid_of(AUTHOR), uuid_of(OTHER)}, {uuid_of(CATEGORY)})
    check_against_model(shared_target.outcome("posts"), expected, len(records))
