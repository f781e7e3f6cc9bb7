"""What the environment asks for, read once into one frozen object.

Every variable may also stand in a `.env` file in the working directory; where both have it, the real environment wins.
A variable that is set but blank counts as not set. Nothing here opens a connection or creates a folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Self, TypedDict, Unpack

from dotenv import dotenv_values

from b44_assets.errors import SettingsError

DEFAULT_FIRST_MONTH = date(2020, 1, 1)
EARLIEST_MONTH = date(1970, 1, 1)
"""No partition key before it is believed: what is older is a date that was never set, or a slip."""
DEFAULT_PLAUSIBLE_YEARS = 10
_MOST_PLAUSIBLE_YEARS = 1000
DEFAULT_BATCH_SIZE = 20_000
DEFAULT_LOCK_TIMEOUT_MS = 200
DEFAULT_BATCH_SECONDS = 2.0
DEFAULT_STREAMS = 2
DEFAULT_MAX_REPLICATION_LAG = 10.0
DEFAULT_MAX_LOCK_QUEUE = 20
DEFAULT_KEEP_RUNS_DAYS = 90
DEFAULT_KEEP_BACKUPS_DAYS = 30

# PostgreSQL keeps lock_timeout in a signed 32-bit number of milliseconds.
_MAX_TIMEOUT_MS = 2**31 - 1
_UNITS_MS = {"ms": 1, "s": 1000, "min": 60_000}
_UNITS_BYTES = {"kB": 1024, "MB": 1024**2, "GB": 1024**3}
_LONGEST_SECONDS = 3600
_LARGEST_MULTIPLE = 1000
_LONGEST_REST_SECONDS = 30
"""After a batch that took unusually long, for it waited for a lock or a checkpoint."""
_WEBHOOK = re.compile(r"https?://[^\s/]+\S*")
_MAIL_SERVER = re.compile(r"smtps?://[^\s/]+/?")
_ADDRESS = re.compile(r"[^@\s,<>]+@[^@\s,<>]+")
_URL = re.compile(r"(?:postgresql|postgres)(?:\+[a-z0-9]+)?://(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class QuarantineLimit:
    """How many records of one entity may be refused before its load is rolled back.

    Exactly one of the two is given.

    Attributes:
        count: A number of records.
        percent: A share of the records read, in percent (exact, 0 to 100).
    """

    count: int | None = None
    percent: Fraction | None = None

    def __post_init__(self) -> None:
        """Refuses an object that says nothing, or two things."""
        if (self.count is None) == (self.percent is None):
            raise ValueError("a quarantine limit is a count or a percentage, and only one of them")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `100` as a count and `0.5%` as a share.

        Args:
            text: What stands in `B44_MAX_QUARANTINE`.

        Raises:
            SettingsError: If it is neither.
        """
        text = text.strip()
        if match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", text):
            percent = Fraction(match[1])
            if percent <= 100:
                return cls(percent=percent)
        elif re.fullmatch(r"[0-9]+", text):
            return cls(count=int(text))
        raise SettingsError(
            f"B44_MAX_QUARANTINE must be a number of records such as 100 or a share such as 0.5%, not {text!r}"
        )

    def exceeded(self, quarantined: int, read: int) -> bool:
        """Tells whether more was refused than allowed; reaching the limit is still allowed.

        Args:
            quarantined: Records refused.
            read: Records read, refused ones included.
        """
        if self.count is not None:
            return quarantined > self.count
        assert self.percent is not None
        return quarantined * 100 > self.percent * read

    def __str__(self) -> str:
        """The limit as it would be written in the environment."""
        return str(self.count) if self.percent is None else f"{float(self.percent):.15g}%"


@dataclass(frozen=True)
class Pause:
    """How long a load rests between two batches of a stream; by default not at all.

    Attributes:
        seconds: A time of its own, in seconds, at most an hour.
        multiple: The batch's own duration, so many times, at most 1000; so a server that gets slower is given more rest,
            but never more than 30 seconds. At most one of the two is given.
    """

    seconds: float = 0.0
    multiple: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what would be two pauses, or none that ends."""
        if self.seconds and self.multiple:
            raise ValueError("a pause is a time or a multiple of the batch's own, and only one of them")
        if not (0 <= self.seconds <= _LONGEST_SECONDS and 0 <= self.multiple <= _LARGEST_MULTIPLE):
            raise ValueError("a pause is from 0 seconds to an hour, or up to 1000 times the batch's own duration")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `0` as none, `100ms` and `2s` as a time, and `3x` as three times the batch's own duration.

        Args:
            text: What stands in `B44_BATCH_PAUSE`.

        Raises:
            SettingsError: If it is none of these.
        """
        text = text.strip()
        if re.fullmatch(r"0+", text):
            return cls()
        if match := re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,3})?)\s*x", text):
            if (multiple := float(match[1])) <= _LARGEST_MULTIPLE:
                return cls(multiple=multiple)
        elif (ms := _duration(text)) is not None and ms <= _LONGEST_SECONDS * 1000:
            return cls(seconds=ms / 1000)
        raise SettingsError(
            "B44_BATCH_PAUSE must be 0, a time of at most an hour such as 100ms or 2s, or a multiple of the batch's own"
            f" duration such as 3x, not {text!r}"
        )

    def after(self, seconds: float) -> float:
        """Returns how long to rest after a batch, in seconds.

        Args:
            seconds: What the batch took.
        """
        return min(self.multiple * seconds, _LONGEST_REST_SECONDS) if self.multiple else self.seconds

    def __str__(self) -> str:
        """The pause as it would be written in the environment."""
        if self.multiple:
            return f"{self.multiple:g}x"
        return f"{round(self.seconds * 1000)}ms" if self.seconds else "0"


@dataclass(frozen=True)
class Pace:
    """How hard a load may push the server.

    Attributes:
        batch_size: The most records in one batch.
        target_seconds: What a batch should take, in seconds; its size adapts towards that.
        pause: The rest between two batches of a stream.
        streams: How many connections load a partitioned table at a time.
        max_replication_lag: Seconds that a standby may be behind before the load holds back; None for no limit.
        max_lock_queue: Sessions of the application that may wait for a lock before it does; None for no limit.
        max_wal_rate: Bytes of WAL a second that the server may write, of the load and of all others; None for no limit.
    """

    batch_size: int = DEFAULT_BATCH_SIZE
    target_seconds: float = DEFAULT_BATCH_SECONDS
    pause: Pause = Pause()
    streams: int = DEFAULT_STREAMS
    max_replication_lag: float | None = DEFAULT_MAX_REPLICATION_LAG
    max_lock_queue: int | None = DEFAULT_MAX_LOCK_QUEUE
    max_wal_rate: int | None = None

    def __post_init__(self) -> None:
        """Refuses a pace at which nothing would ever be loaded."""
        if self.batch_size < 1 or self.streams < 1 or not self.target_seconds > 0:
            raise ValueError(
                "a batch has at least one record, a load at least one stream, and a target above 0 seconds"
            )


_LIVE = Pace(target_seconds=0.02, pause=Pause(multiple=20), streams=1)
"""`B44_THROTTLE=on`: the application has the server to itself for twenty of twenty-one parts of the time."""


class ContentFormat(StrEnum):
    """What a text that readers are shown is, by which it is cleaned or not (`B44_CONTENT_FORMAT`).

    `TEXT` is for apps that store Markdown or code, and escape when they show it.
    """

    HTML = "html"
    TEXT = "text"


class Overrides(TypedDict, total=False):
    """Values that come from command-line options; `None` means that the option was not given."""

    database_url: str | None
    export_dir: Path | None
    sql_dir: Path | None
    home: Path | None
    dagster_pg_url: str | None
    first_month: date | None
    plausible_years: int | None
    max_quarantine: QuarantineLimit | None
    batch_size: int | None
    lock_timeout_ms: int | None
    keep_months: Mapping[str, int] | None
    content_format: ContentFormat | None
    throttle: bool | None
    batch_seconds: float | None
    batch_pause: Pause | None
    max_replication_lag: float | None
    max_lock_queue: int | None
    max_wal_rate: int | None
    alert_webhook: str | None
    alert_email: tuple[str, ...] | None
    smtp_url: str | None
    alert_from: str | None
    keep_runs_days: int | None
    backup_url: str | None
    backup_key: str | None
    keep_backups_days: int | None
    wal_dir: Path | None
    pg_bin: Path | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one process. URLs are left out of the `repr`, since they may carry passwords.

    Attributes:
        database_url: libpq URL of the target (`B44_DATABASE_URL`); `None` means the embedded server.
        export_dir: Absolute path of the folder of exports (`B44_EXPORT_DIR`).
        sql_dir: Absolute path of the catalogue of SQL files (`B44_SQL_DIR`).
        home: Absolute path of what the project keeps on disk (`B44_HOME`); not created here.
        dagster_pg_url: URL of Dagster's own storage as given (`DAGSTER_PG_URL`).
        first_month: First day of the first month that tables are partitioned for (`B44_FIRST_MONTH`, UTC).
        plausible_years: Years after its staging within which a record's partition key must lie (`B44_PLAUSIBLE_YEARS`).
        max_quarantine: Limit on refused records for each entity (`B44_MAX_QUARANTINE`); `None` is no limit.
        batch_size: Records in one batch of the engine (`B44_BATCH_SIZE`).
        lock_timeout_ms: Longest wait, in milliseconds, for a lock that blocks others (`B44_LOCK_TIMEOUT`).
        keep_months: Months after which partitions are detached, by table (`B44_KEEP_MONTHS`); others are kept for ever.
        content_format: Whether content is HTML, and cleaned, or text, and carried over (`B44_CONTENT_FORMAT`).
        throttle: Whether loads give way to an application in live use (`B44_THROTTLE`); see `pace`.
        batch_seconds: What a batch should take, in seconds (`B44_BATCH_SECONDS`); `None` leaves it to `throttle`.
        batch_pause: The rest between two batches of a stream (`B44_BATCH_PAUSE`); `None` leaves it to `throttle`.
        max_replication_lag: Seconds that a standby may be behind (`B44_MAX_REPLICATION_LAG`); `None` is no limit.
        max_lock_queue: Sessions that may wait for a lock (`B44_MAX_LOCK_QUEUE`); `None` is no limit.
        max_wal_rate: Bytes of WAL a second that the server may write (`B44_MAX_WAL_RATE`); `None` is no limit.
        alert_webhook: URL that a failed run is posted to as JSON (`B44_ALERT_WEBHOOK`).
        alert_email: Addresses that are told of a failed run (`B44_ALERT_EMAIL`, comma-separated).
        smtp_url: The server that takes these e-mails (`B44_SMTP_URL`, such as `smtp://user:password@host:587`; TLS is used
            wherever the server offers it, and always with `smtps://`).
        alert_from: Their sender (`B44_ALERT_FROM`); by default the first recipient.
        keep_runs_days: Days after which the history of a run is forgotten (`B44_KEEP_RUNS_DAYS`).
        backup_url: Where backups go (`B44_BACKUP_URL`): the absolute path of a folder, or an fsspec URL such as
            `s3://bucket/folder`; `None` is a folder of `home`, see `backup_location`.
        backup_key: The age identity that backups are encrypted for, or the path of a file that holds it
            (`B44_BACKUP_KEY`); `None` does not encrypt.
        keep_backups_days: Days after which backups that nothing needs expire (`B44_KEEP_BACKUPS_DAYS`).
        wal_dir: Absolute path of the folder that a server of the user's own archives its WAL into (`B44_WAL_DIR`).
        pg_bin: Absolute path of the folder with the programs of the target's PostgreSQL (`B44_PG_BIN`), in which base
            backups of a server that is not the embedded one are restored; by default the operating system's.
    """

    database_url: str | None = field(default=None, repr=False)
    export_dir: Path | None = None
    sql_dir: Path
    home: Path
    dagster_pg_url: str | None = field(default=None, repr=False)
    first_month: date = DEFAULT_FIRST_MONTH
    plausible_years: int = DEFAULT_PLAUSIBLE_YEARS
    max_quarantine: QuarantineLimit | None = None
    batch_size: int = DEFAULT_BATCH_SIZE
    lock_timeout_ms: int = DEFAULT_LOCK_TIMEOUT_MS
    keep_months: Mapping[str, int] = field(default_factory=dict[str, int])
    content_format: ContentFormat = ContentFormat.HTML
    throttle: bool = False
    batch_seconds: float | None = None
    batch_pause: Pause | None = None
    max_replication_lag: float | None = DEFAULT_MAX_REPLICATION_LAG
    max_lock_queue: int | None = DEFAULT_MAX_LOCK_QUEUE
    max_wal_rate: int | None = None
    alert_webhook: str | None = field(default=None, repr=False)
    alert_email: tuple[str, ...] = ()
    smtp_url: str | None = field(default=None, repr=False)
    alert_from: str | None = None
    keep_runs_days: int = DEFAULT_KEEP_RUNS_DAYS
    backup_url: str | None = field(default=None, repr=False)
    backup_key: str | None = field(default=None, repr=False)
    keep_backups_days: int = DEFAULT_KEEP_BACKUPS_DAYS
    wal_dir: Path | None = None
    pg_bin: Path | None = None

    def __post_init__(self) -> None:
        """Holds what no source of a value may break."""
        if self.first_month.day != 1:
            raise SettingsError(f"first_month must be the first day of a month, not {self.first_month}")
        if self.first_month < EARLIEST_MONTH:
            raise SettingsError(
                f"B44_FIRST_MONTH must be a month from {month_text(EARLIEST_MONTH)} on, not {month_text(self.first_month)}"
            )
        if self.first_month > datetime.now(UTC).date():
            raise SettingsError(f"B44_FIRST_MONTH must be no later than this month, not {month_text(self.first_month)}")
        if not 1 <= self.plausible_years <= _MOST_PLAUSIBLE_YEARS:
            raise SettingsError(
                f"B44_PLAUSIBLE_YEARS must be a whole number from 1 to {_MOST_PLAUSIBLE_YEARS}, not {self.plausible_years}"
            )
        if self.batch_size < 1:
            raise SettingsError(f"B44_BATCH_SIZE must be a whole number of at least 1, not {self.batch_size}")
        if not 1 <= self.lock_timeout_ms <= _MAX_TIMEOUT_MS:
            # PostgreSQL reads 0 as "wait for ever", the opposite of what a bound is for.
            raise SettingsError(f"B44_LOCK_TIMEOUT must be from 1ms to 24 days, not {self.lock_timeout_ms}ms")
        if self.keep_runs_days < 1:
            raise SettingsError(f"B44_KEEP_RUNS_DAYS must be a whole number of at least 1, not {self.keep_runs_days}")
        if self.keep_backups_days < 1:
            raise SettingsError(
                f"B44_KEEP_BACKUPS_DAYS must be a whole number of at least 1, not {self.keep_backups_days}"
            )
        if self.alert_email and self.smtp_url is None:
            raise SettingsError("B44_ALERT_EMAIL needs a server to send by: set B44_SMTP_URL=smtp://host:25")

    @property
    def backup_location(self) -> str:
        """Where backups go: the path of a folder, or an fsspec URL, which may hold a password."""
        return str(self.home / "backups") if self.backup_url is None else self.backup_url

    @property
    def pace(self) -> Pace:
        """How hard a load may push: all that `throttle` brings with it, less what is set by itself."""
        preset = _LIVE if self.throttle else Pace()
        return replace(
            preset,
            batch_size=self.batch_size,
            target_seconds=preset.target_seconds if self.batch_seconds is None else self.batch_seconds,
            pause=preset.pause if self.batch_pause is None else self.batch_pause,
            max_replication_lag=self.max_replication_lag,
            max_lock_queue=self.max_lock_queue,
            max_wal_rate=self.max_wal_rate,
        )

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, directory: Path | None = None, **overrides: Unpack[Overrides]
    ) -> Self:
        """Reads the environment, the `.env` file and the command line's options, which win in the reverse order.

        Args:
            environ: The environment; by default that of the process.
            directory: Where `.env` is looked for and what relative paths start from; by default the working directory.
            overrides: Values that stand above the environment; `None` is as if not given.

        Raises:
            SettingsError: Naming the variable and what would be right; never showing a URL's text.
        """
        directory = (Path.cwd() if directory is None else directory).absolute()
        found = _dotenv(directory / ".env") | dict(os.environ if environ is None else environ)
        values = {name: value.strip() for name, value in found.items() if value is not None and value.strip()}
        given: Overrides = {}
        if text := values.get("B44_DATABASE_URL"):
            given["database_url"] = text
        if text := values.get("B44_EXPORT_DIR"):
            given["export_dir"] = Path(text)
        if text := values.get("B44_SQL_DIR"):
            given["sql_dir"] = Path(text)
        if text := values.get("B44_HOME"):
            given["home"] = Path(text)
        if text := values.get("DAGSTER_PG_URL"):
            given["dagster_pg_url"] = text
        if text := values.get("B44_FIRST_MONTH"):
            given["first_month"] = month_from("B44_FIRST_MONTH", text)
        if text := values.get("B44_PLAUSIBLE_YEARS"):
            given["plausible_years"] = _whole("B44_PLAUSIBLE_YEARS", text)
        if text := values.get("B44_MAX_QUARANTINE"):
            given["max_quarantine"] = QuarantineLimit.parse(text)
        if text := values.get("B44_BATCH_SIZE"):
            given["batch_size"] = _whole("B44_BATCH_SIZE", text)
        if text := values.get("B44_LOCK_TIMEOUT"):
            given["lock_timeout_ms"] = _milliseconds("B44_LOCK_TIMEOUT", text)
        if text := values.get("B44_KEEP_MONTHS"):
            given["keep_months"] = _months_by_table("B44_KEEP_MONTHS", text)
        if text := values.get("B44_CONTENT_FORMAT"):
            given["content_format"] = _content_format("B44_CONTENT_FORMAT", text)
        if text := values.get("B44_THROTTLE"):
            given["throttle"] = _on_or_off("B44_THROTTLE", text)
        if text := values.get("B44_BATCH_SECONDS"):
            given["batch_seconds"] = _seconds(
                "B44_BATCH_SECONDS", text, "a time from 1ms to an hour such as 2s or 500ms"
            )
        if text := values.get("B44_BATCH_PAUSE"):
            given["batch_pause"] = Pause.parse(text)
        if text := values.get("B44_MAX_REPLICATION_LAG"):
            given["max_replication_lag"] = (
                None
                if text == "off"
                else _seconds("B44_MAX_REPLICATION_LAG", text, "a time from 1ms to an hour such as 10s, or off")
            )
        if text := values.get("B44_MAX_LOCK_QUEUE"):
            given["max_lock_queue"] = None if text == "off" else _sessions("B44_MAX_LOCK_QUEUE", text)
        if text := values.get("B44_MAX_WAL_RATE"):
            given["max_wal_rate"] = None if text == "off" else _bytes("B44_MAX_WAL_RATE", text)
        if text := values.get("B44_ALERT_WEBHOOK"):
            given["alert_webhook"] = _matching("B44_ALERT_WEBHOOK", text, _WEBHOOK, "https://host/path")
        if text := values.get("B44_ALERT_EMAIL"):
            given["alert_email"] = _addresses("B44_ALERT_EMAIL", text)
        if text := values.get("B44_SMTP_URL"):
            given["smtp_url"] = _matching("B44_SMTP_URL", text, _MAIL_SERVER, "smtp://user:password@host:587")
        if text := values.get("B44_ALERT_FROM"):
            given["alert_from"] = _addresses("B44_ALERT_FROM", text)[0]
        if text := values.get("B44_KEEP_RUNS_DAYS"):
            given["keep_runs_days"] = _whole("B44_KEEP_RUNS_DAYS", text)
        if text := values.get("B44_BACKUP_URL"):
            given["backup_url"] = text
        if text := values.get("B44_BACKUP_KEY"):
            given["backup_key"] = text
        if text := values.get("B44_KEEP_BACKUPS_DAYS"):
            given["keep_backups_days"] = _whole("B44_KEEP_BACKUPS_DAYS", text)
        if text := values.get("B44_WAL_DIR"):
            given["wal_dir"] = Path(text)
        if text := values.get("B44_PG_BIN"):
            given["pg_bin"] = Path(text)
        for name, value in overrides.items():
            if name not in Overrides.__annotations__:
                raise TypeError(f"there is no setting named {name!r}")
            if value is not None:
                given[name] = value  # pyright: ignore[reportGeneralTypeIssues]  # checked by the caller's types
        if url := given.get("database_url"):
            # The driver is dropped: psql, pg_dump and psycopg read the plain form, and only that.
            source = "B44_DATABASE_URL" if overrides.get("database_url") is None else "--database-url"
            given["database_url"] = f"postgresql://{_url(source, url)}"
        if url := given.get("dagster_pg_url"):
            _url("DAGSTER_PG_URL", url)
        if path := given.get("export_dir"):
            given["export_dir"] = _absolute("B44_EXPORT_DIR", path, directory)
        if (place := given.get("backup_url")) and "://" not in place:
            given["backup_url"] = str(_absolute("B44_BACKUP_URL", Path(place), directory))
        if (key := given.get("backup_key")) and not key.upper().startswith("AGE-"):
            given["backup_key"] = str(_absolute("B44_BACKUP_KEY", Path(key), directory))
        if path := given.get("wal_dir"):
            given["wal_dir"] = _absolute("B44_WAL_DIR", path, directory)
        if path := given.get("pg_bin"):
            given["pg_bin"] = _absolute("B44_PG_BIN", path, directory)
        given["sql_dir"] = _absolute("B44_SQL_DIR", given.get("sql_dir") or _default_sql_dir(), directory)
        given["home"] = _absolute("B44_HOME", given.get("home") or Path(".b44"), directory)
        return cls(**given)  # pyright: ignore[reportArgumentType]  # None only where it means no limit


def _dotenv(path: Path) -> dict[str, str | None]:
    """Returns the file's variables as written; none if there is no such file, or a virtual environment of that name."""
    if not path.is_file():
        return {}
    try:
        # Without interpolation, since a password may hold "${".
        return dict(dotenv_values(path, interpolate=False, encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text at byte {error.start}") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error


def _url(name: str, text: str) -> str:
    """Returns what follows `scheme://`, having checked the scheme. The text itself is never shown."""
    match = _URL.fullmatch(text)
    if match is None:
        raise SettingsError(f"{name} must be of the form postgresql://user:password@host:5432/database")
    return match["rest"]


def month_from(name: str, text: str) -> date:
    """Reads `2020-01` as the first day of that month.

    Args:
        name: What the text was given as, for the complaint.
        text: The text.

    Raises:
        SettingsError: It is no month.
    """
    match = re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text)
    if match is None or int(match[1]) < 1:
        raise SettingsError(f"{name} must be a month such as 2020-01, not {text!r}")
    return date(int(match[1]), int(match[2]), 1)


def month_text(month: date) -> str:
    """The month as `month_from` reads it; `%Y` would not write a year before 1000 in four digits."""
    return f"{month.year:04}-{month.month:02}"


def _months_by_table(name: str, text: str) -> dict[str, int]:
    kept: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([a-z_][a-z0-9_]*)\s*=\s*([0-9]{1,4})\s*", part)
        if match is None or int(match[2]) < 1 or match[1] in kept:
            raise SettingsError(
                f"{name} must be months by table such as visits=84 or invoices=36,visits=84, not {text!r}"
            )
        kept[match[1]] = int(match[2])
    return kept


def _matching(name: str, text: str, form: re.Pattern[str], example: str) -> str:
    """Returns the text if it has the form. It may hold a secret, and is never shown."""
    if form.fullmatch(text) is None:
        raise SettingsError(f"{name} must be of the form {example}")
    return text


def _addresses(name: str, text: str) -> tuple[str, ...]:
    addresses = tuple(part.strip() for part in text.split(","))
    for address in addresses:
        if _ADDRESS.fullmatch(address) is None:
            raise SettingsError(f"{name} must be e-mail addresses such as ops@example.org, not {address!r}")
    return addresses


def _whole(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise SettingsError(f"{name} must be a whole number of at least 1, not {text!r}")
    return int(text)


def _milliseconds(name: str, text: str) -> int:
    if (ms := _duration(text)) is None:
        raise SettingsError(f"{name} must be a time with its unit such as 200ms or 2s, not {text!r}")
    return ms


def _seconds(name: str, text: str, wanted: str) -> float:
    ms = _duration(text)
    if ms is None or not 1 <= ms <= _LONGEST_SECONDS * 1000:
        raise SettingsError(f"{name} must be {wanted}, not {text!r}")
    return ms / 1000


def _duration(text: str) -> int | None:
    """Returns milliseconds, or None where the text is no time with its unit."""
    match = re.fullmatch(r"([0-9]{1,12})\s*(ms|s|min)", text)
    return None if match is None else int(match[1]) * _UNITS_MS[match[2]]


def _content_format(name: str, text: str) -> ContentFormat:
    try:
        return ContentFormat(text)
    except ValueError:
        raise SettingsError(f"{name} must be {' or '.join(ContentFormat)}, not {text!r}") from None


def _on_or_off(name: str, text: str) -> bool:
    if text not in ("on", "off"):
        raise SettingsError(f"{name} must be on or off, not {text!r}")
    return text == "on"


def _sessions(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise SettingsError(f"{name} must be a number of sessions such as 20, or off, not {text!r}")
    return int(text)


def _bytes(name: str, text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})\s*(kB|MB|GB)(?:/s)?", text)
    if match is None or int(match[1]) < 1:
        raise SettingsError(
            f"{name} must be an amount of WAL a second such as 50MB (kB, MB or GB), or off, not {text!r}"
        )
    return int(match[1]) * _UNITS_BYTES[match[2]]


def _absolute(name: str, path: Path, directory: Path) -> Path:
    """Returns an absolute path; links stay, so that one moved to a newer export is followed each time."""
    try:
        return directory / path.expanduser()
    except RuntimeError as error:
        raise SettingsError(f"{name} must be a path; the home directory in {str(path)!r} is unknown") from error


def _default_sql_dir() -> Path:
    """Returns the catalogue inside the installed package, or that of the repository the package stands in."""
    package = Path(str(files("b44_assets")))
    packaged = package / "sql"
    return packaged if packaged.is_dir() else package.parent / "sql"
