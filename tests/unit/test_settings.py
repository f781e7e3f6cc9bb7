from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from b44_assets.config.quantities import (
    EARLIEST_MONTH,
    ContentFormat,
    Pace,
    Pause,
    QuarantineLimit,
    month_from,
    month_text,
)
from b44_assets.config.settings import Settings
from b44_assets.errors import SettingsError


def load(directory: Path, **environ: str) -> Settings:
    return Settings.load(environ, directory)


def test_an_empty_environment_gives_the_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path)

    assert settings.database_url is None
    assert settings.export_dir is None
    assert settings.home == tmp_path / ".b44"
    assert settings.dagster_pg_url is None
    assert settings.first_month == date(2020, 1, 1)
    assert settings.max_quarantine is None
    assert settings.batch_size == 20_000
    assert settings.content_format is ContentFormat.HTML
    assert settings.lock_timeout_ms == 200
    assert settings.keep_months == {}
    assert settings.backup_location == str(tmp_path / ".b44" / "backups")
    assert settings.backup_key is None
    assert settings.keep_backups_days == 30
    assert settings.wal_dir is None
    assert settings.pg_bin is None
    assert settings.pace == Pace(
        batch_size=20_000,
        target_seconds=2.0,
        pause=Pause(),
        streams=2,
        max_replication_lag=10.0,
        max_lock_queue=20,
        max_wal_rate=None,
    )


def test_the_catalogue_of_the_repository_is_found(tmp_path: Path) -> None:
    assert (load(tmp_path).sql_dir / "functions").is_dir()


def test_every_variable_is_read(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        B44_DATABASE_URL="postgresql://app:secret@db.example:5433/shop?sslmode=require",
        B44_EXPORT_DIR="/exports/today",
        B44_SQL_DIR="catalogue",
        B44_HOME="state",
        DAGSTER_PG_URL="postgresql://dagster@db.example/dagster",
        B44_FIRST_MONTH="2018-11",
        B44_PLAUSIBLE_YEARS="200",
        B44_MAX_QUARANTINE="0.5%",
        B44_BATCH_SIZE="1000",
        B44_LOCK_TIMEOUT="2s",
        B44_KEEP_MONTHS="posts=36, audit_logs=84",
        B44_CONTENT_FORMAT="text",
        B44_THROTTLE="on",
        B44_BATCH_SECONDS="500ms",
        B44_BATCH_PAUSE="1s",
        B44_MAX_REPLICATION_LAG="1min",
        B44_MAX_LOCK_QUEUE="5",
        B44_MAX_WAL_RATE="50MB",
        B44_BACKUP_URL="s3://bucket/shop",
        B44_BACKUP_KEY="keys/backup.txt",
        B44_KEEP_BACKUPS_DAYS="90",
        B44_WAL_DIR="/srv/wal",
        B44_PG_BIN="/usr/lib/postgresql/16/bin",
    )

    assert settings == Settings(
        database_url="postgresql://app:secret@db.example:5433/shop?sslmode=require",
        export_dir=Path("/exports/today"),
        sql_dir=tmp_path / "catalogue",
        home=tmp_path / "state",
        dagster_pg_url="postgresql://dagster@db.example/dagster",
        first_month=date(2018, 11, 1),
        plausible_years=200,
        max_quarantine=QuarantineLimit(percent=Fraction(1, 2)),
        batch_size=1000,
        lock_timeout_ms=2000,
        keep_months={"posts": 36, "audit_logs": 84},
        content_format=ContentFormat.TEXT,
        throttle=True,
        batch_seconds=0.5,
        batch_pause=Pause(seconds=1),
        max_replication_lag=60.0,
        max_lock_queue=5,
        max_wal_rate=50 * 1024 * 1024,
        backup_url="s3://bucket/shop",
        backup_key=str(tmp_path / "keys/backup.txt"),
        keep_backups_days=90,
        wal_dir=Path("/srv/wal"),
        pg_bin=Path("/usr/lib/postgresql/16/bin"),
    )


@pytest.mark.parametrize(("given_url", "expected"), [("copies", "{}/copies"), ("/mnt/copies", "/mnt/copies")])
def test_a_folder_of_backups_is_looked_for_from_where_the_file_of_settings_is(
    tmp_path: Path, given_url: str, expected: str
) -> None:
    assert load(tmp_path, B44_BACKUP_URL=given_url).backup_location == expected.format(tmp_path)


def test_neither_the_key_of_backups_nor_the_url_of_their_store_is_shown(tmp_path: Path) -> None:
    key = "AGE-SECRET-KEY-1QQQQQQQ"
    settings = load(tmp_path, B44_BACKUP_KEY=key, B44_BACKUP_URL="sftp://me:secret@host/backups")

    assert settings.backup_key == key
    assert key not in repr(settings)
    assert "secret" not in repr(settings)


def test_backups_are_kept_for_at_least_a_day(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="B44_KEEP_BACKUPS_DAYS"):
        load(tmp_path, B44_KEEP_BACKUPS_DAYS="0")


def test_the_real_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("B44_BATCH_SIZE=10\nB44_LOCK_TIMEOUT=10ms\n")

    settings = load(tmp_path, B44_BATCH_SIZE="20")

    assert (settings.batch_size, settings.lock_timeout_ms) == (20, 10)


def test_the_process_environment_and_working_directory_are_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("B44_HOME", "here")

    assert Settings.load().home == tmp_path / "here"


def test_options_win_over_everything_and_none_is_no_option(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("B44_EXPORT_DIR=from-file\nB44_BATCH_SIZE=10\n")

    settings = Settings.load({}, tmp_path, export_dir=Path("from-option"), batch_size=None)

    assert (settings.export_dir, settings.batch_size) == (tmp_path / "from-option", 10)


def test_a_misspelt_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="batch_sise"):
        Settings.load({}, tmp_path, batch_sise=1)


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_variable_counts_as_not_set(tmp_path: Path, blank: str) -> None:
    assert load(tmp_path, B44_DATABASE_URL=blank, B44_BATCH_SIZE=blank) == load(tmp_path)


def test_a_password_in_the_file_is_taken_as_written(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("B44_DATABASE_URL='postgresql://app:a${HOME}$b@db/shop'\n")

    assert load(tmp_path).database_url == "postgresql://app:a${HOME}$b@db/shop"


def test_a_link_to_the_exports_is_not_resolved(tmp_path: Path) -> None:
    (tmp_path / "monday").mkdir()
    (tmp_path / "latest").symlink_to("monday")

    assert load(tmp_path, B44_EXPORT_DIR="latest").export_dir == tmp_path / "latest"


def test_a_tilde_is_the_home_directory(tmp_path: Path) -> None:
    assert load(tmp_path, B44_HOME="~/state").home == Path.home() / "state"


@pytest.mark.parametrize(
    ("given_url", "plain"),
    [
        ("postgres://app@db/shop", "postgresql://app@db/shop"),
        ("postgresql+psycopg://app@db/shop", "postgresql://app@db/shop"),
        ("postgresql:///shop?host=/run/pg", "postgresql:///shop?host=/run/pg"),
    ],
)
def test_a_database_url_is_brought_to_the_form_that_psql_reads(tmp_path: Path, given_url: str, plain: str) -> None:
    assert load(tmp_path, B44_DATABASE_URL=given_url).database_url == plain


def test_no_password_is_in_the_repr(tmp_path: Path) -> None:
    settings = load(
        tmp_path, B44_DATABASE_URL="postgresql://app:secret1@db/shop", DAGSTER_PG_URL="postgresql://d:secret2@db/d"
    )

    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("B44_DATABASE_URL", "mysql://app:secret@db/shop", "postgresql://user:password@host:5432/database"),
        ("B44_DATABASE_URL", "db.example.org/secret", "postgresql://user:password@host:5432/database"),
        ("DAGSTER_PG_URL", "sqlite:///secret.db", "postgresql://user:password@host:5432/database"),
        ("B44_FIRST_MONTH", "2020-13", "2020-01"),
        ("B44_FIRST_MONTH", "2020-01-01", "2020-01"),
        ("B44_FIRST_MONTH", "0000-01", "2020-01"),
        ("B44_FIRST_MONTH", "1-01", "2020-01"),
        ("B44_FIRST_MONTH", "2020-1", "2020-01"),
        ("B44_FIRST_MONTH", "0001-01", "from 1970-01 on"),
        ("B44_FIRST_MONTH", "1969-12", "from 1970-01 on"),
        ("B44_FIRST_MONTH", "9999-12", "no later than this month"),
        ("B44_PLAUSIBLE_YEARS", "0", "from 1 to 1000"),
        ("B44_PLAUSIBLE_YEARS", "1001", "from 1 to 1000"),
        ("B44_PLAUSIBLE_YEARS", "ten", "at least 1"),
        ("B44_MAX_QUARANTINE", "0.5", "0.5%"),
        ("B44_MAX_QUARANTINE", "-1", "100"),
        ("B44_MAX_QUARANTINE", "101%", "0.5%"),
        ("B44_MAX_QUARANTINE", "many", "100"),
        ("B44_BATCH_SIZE", "0", "at least 1"),
        ("B44_BATCH_SIZE", "1e3", "at least 1"),
        ("B44_LOCK_TIMEOUT", "200", "200ms or 2s"),
        ("B44_LOCK_TIMEOUT", "0ms", "from 1ms"),
        ("B44_LOCK_TIMEOUT", "999999min", "24 days"),
        ("B44_KEEP_MONTHS", "36", "visits=84"),
        ("B44_KEEP_MONTHS", "posts=0", "visits=84"),
        ("B44_KEEP_MONTHS", "posts=36,posts=12", "visits=84"),
        ("B44_CONTENT_FORMAT", "markdown", "html or text"),
        ("B44_THROTTLE", "yes", "on or off"),
        ("B44_BATCH_SECONDS", "2", "2s or 500ms"),
        ("B44_BATCH_SECONDS", "0s", "from 1ms"),
        ("B44_BATCH_SECONDS", "61min", "an hour"),
        ("B44_BATCH_PAUSE", "1", "100ms or 2s"),
        ("B44_BATCH_PAUSE", "1001x", "3x"),
        ("B44_BATCH_PAUSE", "-1x", "3x"),
        ("B44_BATCH_PAUSE", "61min", "an hour"),
        ("B44_MAX_REPLICATION_LAG", "0s", "10s, or off"),
        ("B44_MAX_REPLICATION_LAG", "never", "10s, or off"),
        ("B44_MAX_LOCK_QUEUE", "-1", "20, or off"),
        ("B44_MAX_LOCK_QUEUE", "none", "20, or off"),
        ("B44_MAX_WAL_RATE", "50", "50MB"),
        ("B44_MAX_WAL_RATE", "0MB", "50MB"),
        ("B44_MAX_WAL_RATE", "50TB", "50MB"),
        ("B44_HOME", "~no_such_account_here/x", "home directory"),
    ],
)
def test_a_wrong_value_is_named_in_one_line_with_what_would_be_right(
    tmp_path: Path, name: str, value: str, expected: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, **{name: value})

    message = str(caught.value)
    assert name in message
    assert expected in message
    assert "\n" not in message
    assert "secret" not in message


SECRETS = {
    "database_url": "mysql://app:secret@db/shop",
    "dagster_pg_url": "sqlite:///secret.db",
    "alert_webhook": "secret",
    "smtp_url": "secret",
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("as_option", [False, True])
def test_no_error_shows_what_may_be_a_password(tmp_path: Path, name: str, as_option: bool) -> None:
    with pytest.raises(SettingsError) as caught:
        if as_option:
            option: dict[str, Any] = {name: SECRETS[name]}
            Settings.load({}, tmp_path, **option)
        else:
            load(tmp_path, **{Settings.variable(name): SECRETS[name]})

    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert "secret" not in str(caught.value.__context__)


def test_a_wrong_option_is_named_and_not_the_variable_that_it_stands_above(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^--database-url must be"):
        Settings.load({"B44_DATABASE_URL": "postgresql://db/shop"}, tmp_path, database_url="mysql://db/shop")


def test_a_value_of_a_file_that_cannot_be_used_is_told_with_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("B44_BATCH_SIZE=0\n")
    with pytest.raises(SettingsError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"B44_BATCH_SIZE in {tmp_path / '.env'} must be a whole number of at least 1, not '0'"


def test_a_name_in_another_case_is_another_variable(tmp_path: Path) -> None:
    assert load(tmp_path, b44_batch_size="none", B44_Home="elsewhere") == load(tmp_path)


def test_settings_that_are_made_by_hand_read_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B44_BATCH_SIZE", "7")

    assert Settings(home=tmp_path, sql_dir=tmp_path).batch_size == 20_000


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load(tmp_path)

    with pytest.raises(ValueError, match="frozen"):
        settings.batch_size = 7  # pyright: ignore[reportAttributeAccessIssue]


def test_a_folder_whose_name_is_not_utf8_is_taken(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")

    assert load(tmp_path, B44_BACKUP_URL=name).backup_location == f"{tmp_path}/{name}"
    assert load(tmp_path, B44_HOME=name).home == tmp_path / name


def test_the_command_line_starts_without_pydantic() -> None:
    """Its import takes longer than all of `b44 --help`."""
    script = "import sys, b44_assets.cli; sys.exit('pydantic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@given(st.dates())
def test_a_month_is_read_as_it_is_written(day: date) -> None:
    month = day.replace(day=1)
    assert month_from("--partition", month_text(month)) == month


@given(st.dates(EARLIEST_MONTH, datetime.now(UTC).date()))
def test_every_first_month_that_a_load_can_advise_is_accepted(day: date) -> None:
    month = day.replace(day=1)
    assert Settings.load({"B44_FIRST_MONTH": month_text(month)}, Path("/nowhere")).first_month == month


def test_a_first_month_given_as_an_option_is_the_first_of_a_month(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="first_month"):
        Settings.load({}, tmp_path, first_month=date(2020, 5, 2))


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"B44_HOME=\xff\n")

    with pytest.raises(SettingsError, match=r"\.env: not UTF-8 text"):
        load(tmp_path)


def test_a_virtual_environment_of_the_files_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()

    assert load(tmp_path).batch_size == 20_000


@pytest.mark.parametrize(
    ("limit", "quarantined", "read", "exceeded"),
    [
        ("3", 3, 1000, False),
        ("3", 4, 1000, True),
        ("0", 0, 10, False),
        ("0", 1, 10, True),
        ("0.5%", 5, 1000, False),
        ("0.5%", 6, 1000, True),
        ("0.1%", 1, 1000, False),
        ("100 %", 10, 10, False),
        ("0%", 0, 0, False),
    ],
)
def test_a_limit_may_be_reached_but_not_passed(limit: str, quarantined: int, read: int, exceeded: bool) -> None:
    assert QuarantineLimit.parse(limit).exceeded(quarantined, read) is exceeded


def test_a_limit_says_one_thing() -> None:
    with pytest.raises(ValueError, match="only one"):
        QuarantineLimit()
    with pytest.raises(ValueError, match="only one"):
        QuarantineLimit(count=1, percent=Fraction(1))


@given(thousandths=st.integers(0, 100_000), read=st.integers(0, 10**9))
def test_a_percentage_is_exact_at_its_edge(thousandths: int, read: int) -> None:
    limit = QuarantineLimit.parse(f"{thousandths / 1000:.3f}%")
    allowed = thousandths * read // 100_000

    assert not limit.exceeded(allowed, read)
    assert limit.exceeded(allowed + 1, read)


@given(text=st.text(max_size=12))
@example(text="0\x1f")  # white space to str.strip, none to int
def test_any_text_is_either_a_limit_or_refused_in_one_line(text: str) -> None:
    try:
        limit = QuarantineLimit.parse(text)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert QuarantineLimit.parse(str(limit)).exceeded(10**12, 10**12) == limit.exceeded(10**12, 10**12)


# -- pace --------------------------------------------------------------------------------------------------------------


def test_the_throttle_brings_one_stream_short_batches_and_long_rests(tmp_path: Path) -> None:
    pace = load(tmp_path, B44_THROTTLE="on").pace

    assert pace == Pace(target_seconds=0.02, pause=Pause(multiple=20), streams=1)
    assert load(tmp_path, B44_THROTTLE="off").pace == load(tmp_path).pace


def test_what_is_set_by_itself_stays_under_the_throttle(tmp_path: Path) -> None:
    pace = load(tmp_path, B44_THROTTLE="on", B44_BATCH_SIZE="500", B44_BATCH_SECONDS="1s", B44_BATCH_PAUSE="0").pace

    assert pace == Pace(batch_size=500, target_seconds=1, pause=Pause(), streams=1)


def test_limits_can_be_switched_off(tmp_path: Path) -> None:
    pace = load(tmp_path, B44_MAX_REPLICATION_LAG="off", B44_MAX_LOCK_QUEUE="off", B44_MAX_WAL_RATE="off").pace

    assert (pace.max_replication_lag, pace.max_lock_queue, pace.max_wal_rate) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "size"), [("1kB", 1024), ("50MB", 50 * 2**20), ("50 MB/s", 50 * 2**20), ("1GB", 2**30)]
)
def test_a_rate_of_wal_has_the_units_of_postgresql(tmp_path: Path, text: str, size: int) -> None:
    assert load(tmp_path, B44_MAX_WAL_RATE=text).pace.max_wal_rate == size


@pytest.mark.parametrize(
    ("text", "rest"),
    [("0", 0.0), ("0ms", 0.0), ("100ms", 0.1), ("2s", 2.0), ("3x", 1.2), ("0.5 x", 0.2), ("0x", 0.0), ("100x", 30.0)],
)
def test_a_pause_is_a_time_or_a_multiple_of_what_the_batch_took(text: str, rest: float) -> None:
    assert Pause.parse(text).after(0.4) == pytest.approx(rest)


def test_a_pause_says_one_thing() -> None:
    with pytest.raises(ValueError, match="only one"):
        Pause(seconds=1, multiple=1)
    for wrong in ({"seconds": -1.0}, {"seconds": 3601.0}, {"multiple": 1001.0}, {"multiple": float("nan")}):
        with pytest.raises(ValueError, match="an hour"):
            Pause(**wrong)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"streams": 0}, {"target_seconds": 0}])
def test_a_pace_at_which_nothing_is_loaded_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Pace(**wrong)


PACES = (
    "B44_BATCH_SECONDS",
    "B44_BATCH_PAUSE",
    "B44_THROTTLE",
    "B44_MAX_REPLICATION_LAG",
    "B44_MAX_LOCK_QUEUE",
    "B44_MAX_WAL_RATE",
)


@given(
    name=st.sampled_from(PACES),
    text=st.one_of(
        st.text(max_size=12),
        st.from_regex(r"[0-9]{1,13}(\.[0-9]{1,4})? ?(ms|s|min|x|kB|MB|GB)?(/s)?", fullmatch=True),
    ),
)
def test_any_text_is_either_a_pace_or_refused_in_one_line(name: str, text: str) -> None:
    try:
        settings = Settings.load({name: text}, Path("/nowhere"))
    except SettingsError as error:
        assert name in str(error)
        assert "\n" not in str(error)
    else:
        pace = settings.pace
        assert 0 < pace.target_seconds <= 3600
        assert 0 <= pace.pause.after(1) <= 3600
        assert Pause.parse(str(pace.pause)) == pace.pause
