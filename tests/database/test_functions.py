"""The functions of `sql/functions/`, held against plain Python that shares nothing with them."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from typing import Any, LiteralString

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from b44_assets.catalog import Catalog, Kind
from b44_assets.postgres.connect import connect
from b44_assets.schema.apply import apply
from b44_assets.session import Session
from tests.helpers.records import FIRST_SECOND, NAMESPACE, object_id, uuid_of
from tests.helpers.servers import Pg15
from tests.helpers.target import SYSTEM_USER, Target, new_database

# A round trip costs more than a value, so that each example is a list of them.
many = settings(max_examples=60)
storable = st.characters(exclude_categories=["Cs"], exclude_characters="\0")

WHITE_SPACE = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x200B))
)


def lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=1, max_size=60)


class Functions:
    """The functions of a database, called for many values at once."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def map(self, function: str, values: list[Any], kind: str = "text", shown: str = "{}") -> list[Any]:
        """What a function gives for each value; `shown` says as what."""
        schema, _, name = function.rpartition(".")
        call = sql.SQL("{}(v)").format(sql.Identifier(schema or "public", name))
        query = sql.SQL("select {} from unnest(%s::{}[]) with ordinality as given (v, place) order by place").format(
            sql.SQL(shown).format(call),  # pyright: ignore[reportArgumentType]
            sql.SQL(kind),  # pyright: ignore[reportArgumentType]
        )
        return [row[0] for row in self._target.conn.execute(query, (values,)).fetchall()]

    def all(self, query: str, values: list[Any]) -> list[tuple[Any, ...]]:
        """What a query over values returns."""
        return self._target.all(query, values)

    def one(self, function: str, value: Any, kind: str = "text") -> Any:
        """What a function gives for a value."""
        return self.map(function, [value], kind)[0]

    def compare(self, function: str, values: list[Any], model: Callable[[Any], Any], shown: str = "{}") -> None:
        """Holds a function against its model, value for value."""
        found = self.map(function, values, shown=shown)
        expected = [model(value) for value in values]
        assert list(zip(values, found, strict=True)) == list(zip(values, expected, strict=True))


@pytest.fixture(scope="session")
def functions(shared_target: Target) -> Functions:
    """Functions read no table, so that nothing needs a reset; those that do have `target`."""
    return Functions(shared_target)


# -- white space, slugs ------------------------------------------------------------------------------------------------


def test_white_space_is_what_python_calls_so_and_the_byte_order_mark(functions: Functions) -> None:
    characters = [chr(code) for code in range(1, 0x3100)] + ["\ufeff", "\ufffe", "\U0001f600"]
    blank = functions.map("b44.trim", characters, shown="{} is null")
    assert {c for c, is_blank in zip(characters, blank, strict=True) if is_blank} == set(WHITE_SPACE)
    assert set(WHITE_SPACE) - {"\ufeff"} == {c for c in characters if c.isspace()}


@many
@given(lists(st.text(st.one_of(st.sampled_from(WHITE_SPACE), storable), max_size=8)))
def test_trim_is_that_of_python_and_null_for_blank_text(functions: Functions, values: list[str]) -> None:
    functions.compare("b44.trim", values, lambda value: value.strip(WHITE_SPACE) or None)


@many
@given(lists(st.text(st.one_of(st.sampled_from(WHITE_SPACE), storable), max_size=8)))
def test_present_leaves_text_as_it_is_unless_it_is_blank(functions: Functions, values: list[str]) -> None:
    functions.compare("b44.present", values, lambda value: value if value.strip(WHITE_SPACE) else None)


def slug(value: str) -> str | None:
    """The rule for slugs in plain Python: NFC, lower case, letters, marks and digits, a hyphen for all between them."""
    composed = unicodedata.normalize("NFC", value)
    kept, symbol = "", True
    for c in composed:
        if unicodedata.category(c)[0] in "LM" or unicodedata.category(c) == "Nd":
            # What says how the symbol before it is shown goes with it.
            if not (symbol and kept and re.match("[\ufe00-\ufe0f\u20e3\U000e0100-\U000e01ef]", c)):
                symbol = False
                kept += c
        else:
            symbol = True
            kept += "-"
    hyphened = re.sub("-+", "-", kept)
    return unicodedata.normalize("NFC", "".join(map(lower, words(hyphened)))).strip("-") or None


def words(hyphened: str) -> list[str]:
    return re.findall("-|[^-]+", hyphened)


def lower(word: str) -> str:
    """Lower case; a capital sigma is the final one at the end of a word, but for accents, of more than it."""
    return re.sub("(?<=.)Σ(?=[\u0300-\u036f]*$)", "ς", word).replace("Σ", "σ").lower()


@cache
def known_characters() -> list[str]:
    """Those that are assigned; of a Python with a newer Unicode than the rule's, 14.0, those that have been so for long."""
    return [
        chr(code)
        for code in range(1, 0x110000)
        if unicodedata.category(chr(code)) not in ("Cs", "Cn")
        and (code < 0xF0000 or code % 997 == 0)
        and (unicodedata.unidata_version == "14.0.0" or code < 0x800)
    ]


_CHARACTERS = st.deferred(lambda: st.sampled_from(known_characters()))
_SCRIPTS = st.sampled_from("١٢३४५日本語アあ한글ไทยאבجدهΑßẞǅİıﬁΣσςहिन्दीதமிழ்ភាសាမြန်မา\u0301\u0307\u030c\u20e3")
_BETWEEN = st.sampled_from("-–_.,;:'’!?#&/ \u00a0\u200b\u200c\u200d\ufe0f❤😀☕🏽½²Ⅷ①")


@pytest.mark.parametrize("around", ["{}", "a{}b", "ж{} {}"])
def test_slug_knows_every_character_of_unicode(functions: Functions, around: str) -> None:
    functions.compare("b44.slug", [around.replace("{}", c) for c in known_characters()], slug)


@many
@given(lists(st.text(st.one_of(_CHARACTERS, _SCRIPTS, _BETWEEN), max_size=12)))
@example(["ÄÖÜ Straße", "ΟΔΟΣ", "İstanbul", "a--b__c", "-a-", "--", "", "日本語 タグ", "C++ & C#", "J\u030c"])
def test_slug_keeps_letters_marks_and_digits_of_any_script_in_lower_case(
    functions: Functions, values: list[str]
) -> None:
    functions.compare("b44.slug", values, slug)


@many
@given(lists(st.text(st.one_of(_CHARACTERS, _SCRIPTS, _BETWEEN), max_size=12)))
def test_a_slug_is_its_own_slug(functions: Functions, values: list[str]) -> None:
    slugs = [made for made in functions.map("b44.slug", values) if made is not None]
    assert functions.map("b44.slug", slugs) == slugs


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("हिन्दी ब्लॉग", "हिन्दी-ब्लॉग"),
        ("தமிழ்", "தமிழ்"),
        ("ภาษาไทย ดี", "ภาษาไทย-ดี"),
        ("قُرْآن كريم", "قُرْآن-كريم"),
        ("می‌خواهم", "می-خواهم"),
        ("İstanbul", "i\u0307stanbul"),
        ("Cafe\u0301 Écru", "café-écru"),
        ("ΟΔΟΣ ΣΑΣ", "οδος-σας"),
        ("Ｆｕｌｌ １２", "ｆｕｌｌ-１２"),
        ("x² and ½", "x-and"),
        ("I ❤️ Unicode", "i-unicode"),
        ("❤️", None),
        ("👩🏽‍⚕️ 🇩🇪 #️⃣", None),
        ("C, C++ & C#", "c-c-c"),
    ],
)
def test_slugs_of_many_scripts(functions: Functions, title: str, expected: str | None) -> None:
    assert functions.one("b44.slug", title) == expected
    assert slug(title) == expected


def slugs_in(server_url: str, catalog: Catalog, locale: LiteralString) -> None:
    needed = ("b44/schema", "b44/upgrade_from_0_1", "b44/text_functions")
    titles = ["हिन्दी ब्लॉग", "İSTANBUL ΟΔΟΣ IŞIK", "Cafe\u0301 ÉCRU", "日本 ❤️ ÄÖ", "I. Ⅷ ẞ"]
    with new_database(server_url, options="encoding 'UTF8' " + locale) as url:
        for spec in catalog.of(Kind.RUNTIME):
            if spec.name in needed:
                apply(Session(url=url, catalog=catalog), spec)
        with connect(url, application_name="test") as conn:
            made = conn.execute("select b44.slug(t) from unnest(%s::text[]) t", (titles,)).fetchall()
    assert [row[0] for row in made] == [slug(title) for title in titles]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_slugs_do_not_depend_on_the_locale_of_the_database(server_url: str, catalog: Catalog, locale: str) -> None:
    slugs_in(server_url, catalog, "locale 'C'" if locale == "C" else "locale 'C.UTF-8'")


def test_slugs_are_not_turkish_where_the_database_is(pg15: Pg15, catalog: Catalog) -> None:
    slugs_in(pg15.url(), catalog, "locale_provider icu icu_locale 'tr-TR' locale 'C.UTF-8'")


def test_generated_slug_is_the_titles(target: Target) -> None:
    assert target.one("select generate_post_slug('  Hello, World! ')") == "hello-world"


@pytest.mark.parametrize("title", ["", "  ", "!?", None])
def test_generated_slug_of_a_title_without_letters_is_post(target: Target, title: str | None) -> None:
    assert target.one("select generate_post_slug(%s)", title) == "post"


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "news"),
        (["news"], "news-2"),
        (["news", "news-2"], "news-3"),
        (["news", "news-3"], "news-2"),
        (["news", "news-2", "news-3", "news-5"], "news-4"),
        (["news-2"], "news"),
        (["news", "news-02"], "news-2"),
        (["New", "new"], "news"),
    ],
)
def test_generated_slug_is_the_first_that_is_free(target: Target, taken: list[str], expected: str) -> None:
    for name in taken:
        target.run("insert into post_slugs values (%s, gen_random_uuid(), now())", name)
    assert target.one("select generate_post_slug('News', gen_random_uuid())") == expected


# -- identifiers -------------------------------------------------------------------------------------------------------

_HEX = st.text("0123456789abcdefABCDEF", min_size=24, max_size=24)
_UUIDS = st.uuids().map(str)
_IDS = st.one_of(
    _HEX,
    _UUIDS,
    _UUIDS.map(str.upper),
    st.text(storable, max_size=70),
    st.text("0123456789abcdefg-", min_size=20, max_size=40),
    st.sampled_from(["guest_1778614319013", "service_0c0d", "null", "anonymous", "é" * 90, "6970c3a24e8275af9d1ae39g"]),
)


def test_an_object_id_becomes_a_version_8_uuid_by_the_contracts_formula(functions: Functions) -> None:
    assert str(functions.one("base44_uuid", "6970c3a24e8275af9d1ae397")) == "6970c3a2-4e82-875a-8f9d-1ae397000b44"


@many
@given(lists(st.tuples(st.text(WHITE_SPACE, max_size=2), _IDS, st.text(WHITE_SPACE, max_size=2)).map("".join)))
@example([" 6970c3a24e8275af9d1ae397\n", "", " ", "abc", "6970C3A24E8275AF9D1AE397"])
def test_every_id_becomes_the_uuid_that_python_makes_of_it(functions: Functions, values: list[str]) -> None:
    def model(value: str) -> str | None:
        trimmed = value.strip(WHITE_SPACE)
        return uuid_of(trimmed) if trimmed else None

    functions.compare("base44_uuid", values, model, shown="{}::text")


def test_other_text_becomes_a_version_5_uuid_in_the_projects_namespace(functions: Functions) -> None:
    assert functions.one("base44_uuid", "guest_1") == uuid.uuid5(NAMESPACE, "guest_1")
    assert functions.one("base44_uuid", "guest_1").version == 5


@many
@given(lists(_HEX))
def test_an_object_id_can_be_read_back_from_its_uuid(functions: Functions, values: list[str]) -> None:
    made = functions.map("base44_uuid", values)
    assert functions.map("base44_object_id", made, kind="uuid") == [value.lower() for value in values]


@many
@given(lists(st.one_of(st.uuids(), _HEX.map(lambda h: uuid.UUID(uuid_of(h))))))
def test_only_uuids_of_the_contracts_form_are_read_back(functions: Functions, values: list[uuid.UUID]) -> None:
    def model(value: uuid.UUID) -> str | None:
        h = value.hex
        if h[12] == "8" and h[16] == "8" and h.endswith("000b44"):
            return h[:12] + h[13:16] + h[17:26]
        return None

    assert functions.map("base44_object_id", values, kind="uuid") == [model(value) for value in values]


def test_time_order_of_object_ids_is_kept(functions: Functions) -> None:
    ids = [object_id(n) for n in (1, 2, 3, 17, 256, 65536)]
    made = functions.map("base44_uuid", ids)
    assert made == sorted(made)


@many
@given(lists(st.binary(max_size=200)))
@example([b"\0" * n for n in (54, 55, 56, 57, 63, 64, 65, 118, 119, 120, 127, 128, 129)])
def test_sha1_is_that_of_hashlib(functions: Functions, values: list[bytes]) -> None:
    found = functions.map("b44.sha1", values, kind="bytea")
    assert [value.hex() for value in found] == [hashlib.sha1(value).hexdigest() for value in values]


def test_the_time_of_an_object_id_is_its_first_eight_digits(functions: Functions) -> None:
    ids = [object_id(5), object_id(5).upper(), "ffffffff" + "0" * 16, "guest_1", "é" * 24, object_id(5) + "0", ""]
    expected = [
        *[datetime.fromtimestamp(FIRST_SECOND + 5, UTC)] * 2,
        datetime.fromtimestamp(0xFFFFFFFF, UTC),
        None, None, None, None,
    ]  # fmt: skip
    assert functions.map("migration.object_id_time", ids) == expected


def test_equal_ids_have_equal_keys(functions: Functions) -> None:
    values = [object_id(10).upper(), " guest_1 ", "Guest_1", "", "\u00a0", SYSTEM_USER.upper(), None]
    assert functions.map("migration.id_key", values) == [object_id(10), "guest_1", "Guest_1", "", "", SYSTEM_USER, ""]


# -- conversions -------------------------------------------------------------------------------------------------------

_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?(?: ?(?:([Zz])|([+-])(\d\d)(?::?(\d\d))?))?)?",
    re.ASCII,
)


def timestamp(value: str) -> datetime | None:
    """ISO 8601 as Base44 and spreadsheets write it; fractions rounded to microseconds."""
    match = _TIMESTAMP.fullmatch(value.strip(" \t\r\n"))
    if match is None:
        return None
    year, month, day = (int(match[n]) for n in (1, 2, 3))
    hour, minute, second = (int(match[n] or 0) for n in (4, 5, 6))
    fraction = int((Decimal(match[7] or 0) * 1_000_000).quantize(Decimal(1), ROUND_HALF_EVEN))
    try:
        found = datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None
    # PostgreSQL takes 24:00:00 for the next midnight and second 60 for the next minute, as ISO 8601 allows.
    if minute > 59 or second > 60 or hour > 24 or (hour == 24 and (minute, second, fraction) != (0, 0, 0)):
        return None
    offset = timedelta()
    if match[9]:
        hours, minutes = int(match[10]), int(match[11] or 0)
        if hours > 15 or minutes > 59:
            return None
        offset = timedelta(hours=hours, minutes=minutes) * (1 if match[9] == "+" else -1)
    return found + timedelta(hours=hour, minutes=minute, seconds=second, microseconds=fraction) - offset


_TWO_DIGITS = st.integers(0, 75).map(lambda n: f"{n:02d}")
_HOURS = st.integers(0, 26).map(lambda n: f"{n:02d}")
_DATES = st.one_of(
    st.dates(min_value=datetime(1900, 1, 1).date(), max_value=datetime(2200, 1, 1).date()).map(str),
    st.tuples(st.sampled_from(["0000", "0001", "1970", "2024", "2026", "9998"]), st.integers(0, 13), st.integers(0, 32))
    .map(lambda p: f"{p[0]}-{p[1]:02d}-{p[2]:02d}")
    .filter(lambda d: d != "0001-01-01"),
)
# No half of a microsecond: which way such a one goes is nobody's rule.
_FRACTIONS = st.one_of(st.just(""), st.text("0123456789", min_size=1, max_size=6), st.sampled_from(
    ["000000", "9999996", "1234564", "12345678", "999999999"])).map(lambda f: f and "." + f)  # fmt: skip
_CLOCKS = st.one_of(
    st.tuples(_HOURS, _TWO_DIGITS).map(":".join),
    st.tuples(st.tuples(_HOURS, _TWO_DIGITS, _TWO_DIGITS).map(":".join), _FRACTIONS).map("".join),
    st.sampled_from(["24:00:00", "23:59:60", "24:00", "7:30", "07:3", "12:00:00.", "12:00:00,5", "120000"]),
)
_ZONES = st.one_of(
    st.sampled_from(["", "", "Z", "z", " Z", "+00", "-00:00", " UTC", "Z+01", "+1", "+14:00", "+16:00", "+5:30"]),
    st.tuples(st.sampled_from(["+", "-", " +"]), _HOURS, st.sampled_from(["", ":", "x"]), _TWO_DIGITS).map("".join),
)
_TIMESTAMPS = st.one_of(
    _DATES,
    st.tuples(_DATES, st.sampled_from(["T", " ", "T", " ", "t", "  ", ""]), _CLOCKS, _ZONES).map("".join),
    st.sampled_from(
        ["", " ", "now", "today", "yesterday", "infinity", "-infinity", "epoch", "2024-02-30", "2023-02-29T00:00", "0"]
    ),
    st.text("0123456789-T:.Z+ ", max_size=30),
    st.text(storable, max_size=20),
)


@many
@given(lists(st.tuples(st.sampled_from(["", "", "", " ", "\n\t"]), _TIMESTAMPS, st.sampled_from(["", "", "\r"])).map("".join)))  # fmt: skip  # noqa: E501
@example(["2026-03-26T23:25:53.950000", "2026-06-09T17:30:00.000Z", "2026-05-10T08:30", "2026-06-25 18:43:12"])
@example(["2024-02-29", "2023-02-29", "2026-03-29T02:30:00", "2026-01-01T00:00:00+05:30", "2026-13-01T00:00:00.000000"])
@example(["٢٠٢٦-٠١-٠١", "2026-01-01T00:00:00\u00a0", "2026-01-01T25:00:00", "2026-01-01 00:00:00-0330"])
def test_timestamps_are_read_as_iso_8601_in_utc(functions: Functions, values: list[str]) -> None:
    functions.compare("migration.as_timestamp", values, timestamp)


def test_timestamps_do_not_depend_on_the_time_zone_of_the_session(target: Target) -> None:
    with target.conn.transaction():
        target.run("set local timezone to 'Asia/Kathmandu'")
        target.run("set local datestyle to 'SQL, DMY'")
        found = target.all(
            "select extract(epoch from migration.as_timestamp(v))::int"
            " from unnest(array['2026-05-10T08:30', '2026-05-10', '2026-05-10T08:30+02', '2026-05-10 08:30:00']) v"
        )
    midnight = int(datetime(2026, 5, 10, tzinfo=UTC).timestamp())
    assert [row[0] - midnight for row in found] == [30_600, 0, 30_600 - 7_200, 30_600]


def integer(value: str) -> int | None:
    match = re.fullmatch(r"([+-]?[0-9]{1,18})(?:\.0*)?", value.strip(" \t\r\n"))
    return int(match[1]) if match and -(2**31) <= int(match[1]) < 2**31 else None


_INTEGERS = st.one_of(
    st.integers(-(2**33), 2**33).map(str),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 10**18 - 1, 10**18]).map(str),
    st.tuples(st.sampled_from(["+", "-", "00", "", " ", "--"]), st.integers(0, 2**33).map(str),
              st.sampled_from(["", ".0", ".", ".00", ".5", "e3", "\n", " 1", "_0"])).map("".join),
    st.text("0123456789+-. e", max_size=12),
    st.text(storable, max_size=6),
    st.sampled_from(["٣", "１２", "", "NaN", "1,000", "0x10", "1e5"]),
)  # fmt: skip


@many
@given(lists(_INTEGERS))
def test_integers_are_read_where_they_fit_in_32_bits(functions: Functions, values: list[str]) -> None:
    functions.compare("migration.as_integer", values, integer)


_WIDE_INTEGERS = st.one_of(
    _INTEGERS,
    st.integers(-(2**65), 2**65).map(str),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1]).map(str),
    st.integers(1, 200).map(lambda length: "9" * length),
    st.integers(1, 20_000).map(lambda length: f"1.{'0' * length}"),
)


@many
@given(lists(_WIDE_INTEGERS))
@example(["9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"])
def test_integers_are_read_where_they_fit_in_64_bits(functions: Functions, values: list[str]) -> None:
    def model(value: str) -> int | None:
        match = re.fullmatch(r"([+-]?[0-9]+)(?:\.0*)?", value.strip(" \t\r\n")) if len(value) <= 100 else None
        return int(match[1]) if match and -(2**63) <= int(match[1]) < 2**63 else None

    functions.compare("migration.as_bigint", values, model)


_NUMBERS = st.one_of(
    _WIDE_INTEGERS,
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.decimals(allow_nan=True, allow_infinity=True).map(str),
    st.text("0123456789+-.eE ", max_size=10),
    st.sampled_from(
        ["1e999", "1E-999", "1e1000", "-.5", "5.", ".", "+", "1_000", "0x1F", "inf", "nan", f"{'9' * 999}e999", "1e٣"]
    ),
)


@many
@given(lists(_NUMBERS))
@example(["1e999", "1e1000", "-1.50E-3", "+.5", "1" * 1001])
def test_numbers_are_read_exactly(functions: Functions, values: list[str]) -> None:
    def model(value: str) -> Decimal | None:
        form = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
        text = value.strip(" \t\r\n")
        return Decimal(text) if len(value) <= 1000 and re.fullmatch(form, text) else None

    functions.compare("migration.as_numeric", values, model)


_DAYS = st.one_of(
    st.dates().map(lambda day: day.isoformat()),
    st.builds("{:04}-{:02}-{:02}".format, st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32)),
    st.sampled_from(
        ["2024-02-29", "2023-02-29", "1900-02-29", "2000-02-29", "today", "infinity", "2025-7-1", "٢٠٢٦-٠١-٠١"]
    ),
    st.text("0123456789-", max_size=11),
)
_BEHIND_DAYS = st.sampled_from(
    [
        "",
        "",
        " ",
        "T00:00",
        " 00:00:00",
        "T00:00:00.000Z",
        "T00:00:00+00:00",
        "T00:00Z",
        "T12:00",
        "T00:00:01",
        "+02",
        "T00:00+01:00",
    ]
)


@many
@given(lists(st.tuples(st.sampled_from(["", "\n"]), _DAYS, _BEHIND_DAYS).map("".join)))
def test_days_are_read_where_no_time_of_day_is_lost(functions: Functions, values: list[str]) -> None:
    def model(value: str) -> date | None:
        form = r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]00:00(?::00(?:\.0+)?)?(?: ?(?:Z|[+-]00(?::?00)?))?)?"
        match = re.fullmatch(form, value.strip(" \t\r\n"))
        try:
            return date.fromisoformat(match[1]) if match else None
        except ValueError:
            return None

    functions.compare("migration.as_date", values, model)


_TIMES = st.one_of(
    st.times().map(lambda moment: moment.isoformat()),
    st.builds("{:02}:{:02}:{:02}".format, st.integers(0, 25), st.integers(0, 61), st.integers(0, 61)),
    st.builds("{:02}:{:02}".format, st.integers(0, 24), st.integers(0, 60)),
    st.sampled_from(
        [
            "24:00",
            "23:59:59.9999999",
            "12:00:00.1000000000",
            f"12:00:00.{'0' * 500}",
            "now",
            "allballs",
            "9:00",
            "09:00 PM",
        ]
    ),
    st.text("0123456789:.", max_size=9),
)


@many
@given(lists(_TIMES))
def test_times_of_day_are_read_to_the_microsecond(functions: Functions, values: list[str]) -> None:
    def model(value: str) -> time | None:
        match = re.fullmatch(r"([0-9]{2}:[0-9]{2})(:[0-9]{2}(\.[0-9]{1,6}0*)?)?", value.strip(" \t\r\n"))
        try:
            return (
                time.fromisoformat((match[1] + (match[2] or ":00") + ("" if match[3] else ".") + "000000")[:15])
                if match
                else None
            )
        except ValueError:
            return None

    functions.compare("migration.as_time", values, model)


_BOOLEANS = {"true": True, "t": True, "yes": True, "1": True, "false": False, "f": False, "no": False, "0": False}


@many
@given(
    lists(
        st.one_of(
            st.sampled_from(
                [*_BOOLEANS, "TRUE", "False", "Yes", "nO", "T", "F", "on", "off", "2", "tr", "y", "n", "ja"]
            ),
            st.text(storable, max_size=5),
        ).flatmap(lambda word: st.sampled_from([word, f" {word}", f"{word}\n"]))
    )
)
def test_booleans_are_the_contracts_words_in_any_case(functions: Functions, values: list[str]) -> None:
    functions.compare("migration.as_boolean", values, lambda value: _BOOLEANS.get(value.strip(" \t\r\n").lower()))


def test_null_stays_null(functions: Functions) -> None:
    readers = ("timestamp", "integer", "bigint", "numeric", "date", "time", "boolean", "jsonb", "text_array")
    for name in (*(f"as_{kind}" for kind in readers), "as_creator", "object_id_time"):
        assert functions.one(f"migration.{name}", None) is None
    for name in ("b44.trim", "b44.present", "b44.slug", "base44_uuid"):
        assert functions.one(name, None) is None


def test_who_made_a_record_is_kept_as_it_is_but_for_words_for_nobody(functions: Functions) -> None:
    given = ["null", " NULL\n", "undefined", "anonymous", "service_1", " ada@example.org ", "nullable"]
    assert functions.map("migration.as_creator", given) == [None, None, None, *given[3:]]


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.text(storable, max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(storable, max_size=3), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip


@many
@given(lists(_JSON))
def test_json_keeps_its_value(functions: Functions, values: list[Any]) -> None:
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    found = functions.map("migration.as_jsonb", texts, shown="{}::text")
    assert [json.loads(text) for text in found] == values


@many
@given(lists(_JSON))
@example([[], [None], ["a", 1, True, None], [[1]], [{}], "[]"])
def test_texts_are_read_from_a_flat_array(functions: Functions, values: list[Any]) -> None:
    def model(value: Any) -> list[str | None] | None:
        if not isinstance(value, list) or any(isinstance(item, (list, dict)) for item in value):  # pyright: ignore[reportUnknownVariableType]
            return None
        return [item if item is None or isinstance(item, str) else json.dumps(item) for item in value]  # pyright: ignore[reportUnknownVariableType]

    texts = [json.dumps(value) for value in values]
    found = functions.map("migration.as_text_array", texts)
    assert list(zip(texts, found, strict=True)) == list(zip(texts, map(model, values), strict=True))


@pytest.mark.parametrize("text", ["", "a, b", "{a,b}", "[1,]", '["\\u0000"]'])
def test_what_is_no_array_gives_no_texts(functions: Functions, text: str) -> None:
    assert functions.one("migration.as_text_array", text) is None


_KEYS = st.sampled_from(["a", "b", "a:", "\u00e9", '"', "\\"])
_WRITTEN = st.recursive(
    st.sampled_from(["1", "null", '"x"', r'"a\":"', r'"\u003a"', '"::"']),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
        st.lists(
            st.tuples(_KEYS, st.booleans(), st.sampled_from(["", " ", "\n"]), inner).map(
                lambda one: f"{json.dumps(one[0], ensure_ascii=one[1])}{one[2]}:{one[3]}"
            ),
            max_size=3,
        ).map(lambda parts: f"{{{', '.join(parts)}}}"),
    ),
    max_leaves=8,
)


def repeats_a_key(text: str) -> bool:
    found: list[bool] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        found.append(len(dict(pairs)) < len(pairs))

    json.loads(text, object_pairs_hook=look)
    return any(found)


@many
@given(lists(_WRITTEN))
@example(['{"a":1,"a":2}', '{"a":1,"b":{"c":[{"d":1,"d":1}]}}', '{"a":1,"\\u0061":2}', '{"a":"a","b":":"}', "[]"])
@example(['{"a":"\\u003a","b":1,"b":2}', '{"a":{"a":{"a":1}}}', '{"a" :1, "a" :1}', "1"])
def test_a_key_that_stands_more_than_once_is_noticed(functions: Functions, values: list[str]) -> None:
    query = "select migration.repeats_keys(v, migration.as_jsonb(v)) from unnest(%s::text[]) with ordinality as g (v, n) order by n"
    found = [row[0] for row in functions.all(query, values)]
    assert list(zip(values, found, strict=True)) == [(value, repeats_a_key(value)) for value in values]


@pytest.mark.parametrize("text", ["", "{", "dark", "[1,]", "{'a': 1}", '"\\u0000"', "[" * 30_000, "NaN"])
def test_what_is_no_json_is_null(functions: Functions, text: str) -> None:
    assert functions.map("migration.as_jsonb", [text], shown="({}) is null") == [True]


# -- roles and tags ------------------------------------------------------------------------------------------------------

_ROLES = {
    "superuser": "admin", "admin": "admin", "editor": "moderator", "moderator": "moderator",
    "author": "user", "user": "user", "guest": "guest",
}  # fmt: skip


@pytest.mark.parametrize(
    ("given_role", "role"),
    [*_ROLES.items(), (" ADMIN\n", "admin"), ("Editor", "moderator"), ("", "user"), (None, "user"), ("owner", "user")],
)
def test_a_role_is_the_guides(functions: Functions, given_role: str | None, role: str) -> None:
    assert functions.one("transform_user_role", given_role) == role


def tags(value: str | None) -> list[str] | None:
    """A JSON array, or comma-separated; None for a broken array."""
    listed = (value or "").strip(WHITE_SPACE)
    found: list[Any] = listed.split(",")
    if listed.startswith("["):
        try:
            found = json.loads(listed, parse_constant=_refuse)
        except ValueError:
            return None
        if any("\0" in tag or any("\ud800" <= c <= "\udfff" for c in tag) for tag in found if isinstance(tag, str)):
            return None
    texts = [tag if isinstance(tag, str) else json.dumps(tag) for tag in found if tag is not None]
    return [text.strip(WHITE_SPACE) for text in texts if text.strip(WHITE_SPACE)]


def _refuse(name: str) -> None:
    raise ValueError(name)


_TAG = st.one_of(
    st.sampled_from(["machine learning", " news ", "", " ", "\u00a0", "C#", "a,b", "[x]", '"', "\\"]),
    st.text(storable, max_size=5),
)
_ARRAYS = st.lists(st.one_of(_TAG, _TAG, st.none(), st.booleans(), st.integers(-9, 9)), max_size=5).flatmap(
    lambda values: st.sampled_from([json.dumps(values), json.dumps(values, ensure_ascii=False, indent=1)])
)


@many
@given(
    lists(
        st.one_of(
            st.none(),
            _ARRAYS,
            st.tuples(st.sampled_from([" ", "\ufeff"]), _ARRAYS, st.sampled_from(["", "\n", "]", ","])).map("".join),
            st.lists(_TAG, max_size=5).map(",".join),
            st.text('[]",\\ ab1', max_size=12).map(lambda text: f"[{text}"),
        )
    )
)
@example(["machine learning, news ,,  ", '["machine learning", " news ", "", null, 1, true]', "[broken", "[", "[]", ""])
@example(['["\\u0000"]', '["\\ud800"]', '["a"] b', "[NaN]", '{"a": 1}', "a;b", "news"])
def test_tags_are_a_json_array_or_comma_separated(functions: Functions, values: list[str | None]) -> None:
    functions.compare("transform_tags", values, tags)


# -- partitions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/Los_Angeles"])
def test_a_month_is_that_of_utc_whatever_the_session(target: Target, zone: str) -> None:
    target.run("select set_config('timezone', %s, false)", zone)
    try:
        target.run("select create_monthly_partition(date '2024-02-29')")
        target.run("select create_monthly_partition(date '2024-02-01')")
    finally:
        target.run("select set_config('timezone', 'UTC', false)")
    assert target.one("select pg_get_expr(relpartbound, oid) from pg_class where relname = 'posts_2024_02'") == (
        "FOR VALUES FROM ('2024-02-01 00:00:00+00') TO ('2024-03-01 00:00:00+00')"
    )


def test_a_year_is_that_of_utc(target: Target) -> None:
    assert target.one("select b44.create_partition('audit_logs', 'year', date '2024-12-31')") == "audit_logs_2024"
    assert target.one("select pg_get_expr(relpartbound, oid) from pg_class where relname = 'audit_logs_2024'") == (
        "FOR VALUES FROM ('2024-01-01 00:00:00+00') TO ('2025-01-01 00:00:00+00')"
    )
