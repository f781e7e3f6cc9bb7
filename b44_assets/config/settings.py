"""The settings of one process, read once from the environment into one frozen object.

Every variable may also stand in a `.env` file in the app folder, or in the working directory where there is none; where both
have it, the real environment wins.
A variable that is set but blank counts as not set. Nothing here opens a connection or creates a folder.

Importing pydantic takes a third of a second, so what the command line imports at its start imports this module when it
loads the settings, and for its types only otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    AliasGenerator,
    BeforeValidator,
    Field,
    InstanceOf,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from b44_assets.config import quantities
from b44_assets.config.app_folder import APP_FILE, find_app_folder
from b44_assets.config.packaged import packaged
from b44_assets.config.quantities import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_MAX_LOCK_QUEUE,
    DEFAULT_MAX_REPLICATION_LAG,
    DEFAULT_PLAUSIBLE_YEARS,
    EARLIEST_MONTH,
    LIVE,
    ContentFormat,
    Pace,
    Pause,
    QuarantineLimit,
    month_text,
)
from b44_assets.config.thresholds import Thresholds
from b44_assets.errors import SettingsError

_MOST_PLAUSIBLE_YEARS = 1000
# PostgreSQL keeps lock_timeout in a signed 32-bit number of milliseconds.
_MAX_TIMEOUT_MS = 2**31 - 1
_WEBHOOK = re.compile(r"https?://[^\s/]+\S*")
_MAIL_SERVER = re.compile(r"smtps?://[^\s/]+/?")
_ADDRESS = re.compile(r"[^@\s,<>]+@[^@\s,<>]+")
_URL = re.compile(r"(?:postgresql|postgres)(?:\+[a-z0-9]+)?://(?P<rest>.*)", re.DOTALL)

_FOLDERS = ("export_dir", "sql_dir", "home", "wal_dir", "pg_bin")
_OPTIONS = {"database_url": "--database-url", "export_dir": "--export"}
"""The options of the command line that stand above a variable."""


def _text(parse: Callable[[str], Any]) -> BeforeValidator:
    """Reads what came as text; a value of the right type, as an option gives it, is taken as it is."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def _first_month(month: date) -> date:
    if month.day != 1:
        raise ValueError("the first day of a month")
    if month < EARLIEST_MONTH:
        raise ValueError(f"a month from {month_text(EARLIEST_MONTH)} on")
    if month > datetime.now(UTC).date():
        raise ValueError("no later than this month")
    return month


def _plausible(years: int) -> int:
    if not 1 <= years <= _MOST_PLAUSIBLE_YEARS:
        raise ValueError(f"a whole number from 1 to {_MOST_PLAUSIBLE_YEARS}")
    return years


def _at_least_one(number: int) -> int:
    if number < 1:
        raise ValueError("a whole number of at least 1")
    return number


def _bounded(ms: int) -> int:
    # PostgreSQL reads 0 as "wait for ever", the opposite of what a bound is for.
    if not 1 <= ms <= _MAX_TIMEOUT_MS:
        raise ValueError("from 1ms to 24 days")
    return ms


def _plain(url: str) -> str:
    """The URL without the driver: psql, pg_dump and psycopg read the plain form, and only that."""
    match = _URL.fullmatch(url)
    assert match is not None
    return f"postgresql://{match['rest']}"


def _matching(form: re.Pattern[str], example: str) -> AfterValidator:
    def check(text: str) -> str:
        if form.fullmatch(text) is None:
            raise ValueError(f"of the form {example}")
        return text

    return AfterValidator(check)


def _addresses(text: str) -> tuple[str, ...]:
    addresses = tuple(part.strip() for part in text.split(","))
    if not all(_ADDRESS.fullmatch(address) for address in addresses):
        raise ValueError("e-mail addresses such as ops@example.org")
    return addresses


_POSTGRESQL = _matching(_URL, "postgresql://user:password@host:5432/database")
_Whole = Annotated[int, _text(quantities.whole), AfterValidator(_at_least_one)]


@dataclass(frozen=True)
class Origins:
    """Where settings come from.

    Attributes:
        given: Of each that is not the program's default, by its name: an option, a variable, a file.
        misspelt: Where each variable stands that is no setting's and nearly spelt as one, and the variable that is meant.
    """

    given: Mapping[str, str]
    misspelt: Mapping[str, str]


class Settings(BaseSettings):
    """The settings of one process.

    What may hold a password is left out of the `repr`, and never shown by an error.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        case_sensitive=True,
        enable_decoding=False,
        hide_input_in_errors=True,
        validate_by_name=True,
        validate_by_alias=True,
        alias_generator=AliasGenerator(validation_alias=lambda name: f"B44_{name.upper()}"),
    )

    database_url: Annotated[str, _POSTGRESQL, AfterValidator(_plain)] | None = Field(default=None, repr=False)
    """URL of the target, as psql reads it; `None` means the embedded server."""
    read_url: Annotated[str, _POSTGRESQL, AfterValidator(_plain)] | None = Field(default=None, repr=False)
    """URL of a standby of the target that verification and monitoring read from; `None` is the target."""
    read_wait: Annotated[float, _text(quantities.seconds)] = 60.0
    """Seconds for which it is waited until that standby has what the target had."""
    export_dir: Path | None = None
    """Absolute path of the folder of exports."""
    sql_dir: Path
    """Absolute path of the folder of SQL files that the graph is built from."""
    home: Path
    """Absolute path of what the program keeps on disk; not created here."""
    dagster_pg_url: Annotated[str, _POSTGRESQL] | None = Field(
        default=None, repr=False, validation_alias="DAGSTER_PG_URL"
    )
    """URL of Dagster's own storage as given."""
    first_month: Annotated[date, _text(quantities.month), AfterValidator(_first_month)] = date(2020, 1, 1)
    """First day of the first month that tables are partitioned for (UTC)."""
    plausible_years: Annotated[int, _text(quantities.whole), AfterValidator(_plausible)] = DEFAULT_PLAUSIBLE_YEARS
    """Years after its staging within which a record's partition key must lie."""
    max_quarantine: Annotated[InstanceOf[QuarantineLimit] | None, _text(QuarantineLimit.parse)] = None
    """Limit on refused records for each entity; `None` is no limit."""
    batch_size: _Whole = DEFAULT_BATCH_SIZE
    """The most records in one batch."""
    lock_timeout_ms: Annotated[int, _text(quantities.milliseconds), AfterValidator(_bounded)] = Field(
        default=200, validation_alias="B44_LOCK_TIMEOUT"
    )
    """Longest wait, in milliseconds, for a lock that blocks others."""
    keep_months: Annotated[Mapping[str, int], _text(quantities.months_by_table)] = Field(default_factory=dict[str, int])
    """Months after which partitions are detached, by table; others are kept for ever."""
    content_format: Annotated[ContentFormat, _text(ContentFormat.parse)] = ContentFormat.HTML
    """Whether content is HTML, and cleaned, or text, and carried over."""
    throttle: Annotated[bool, _text(quantities.on_or_off)] = False
    """Whether loads give way to an application in live use; see `pace`."""
    batch_seconds: Annotated[float | None, _text(quantities.seconds)] = None
    """What a batch should take, in seconds; `None` leaves it to `throttle`."""
    batch_pause: Annotated[InstanceOf[Pause] | None, _text(Pause.parse)] = None
    """The rest between two batches of a stream; `None` leaves it to `throttle`."""
    max_replication_lag: Annotated[float | None, _text(quantities.seconds_or_off)] = DEFAULT_MAX_REPLICATION_LAG
    """Seconds that a standby may be behind; `None` is no limit."""
    max_lock_queue: Annotated[int | None, _text(quantities.sessions_or_off)] = DEFAULT_MAX_LOCK_QUEUE
    """Sessions that may wait for a lock; `None` is no limit."""
    max_wal_rate: Annotated[int | None, _text(quantities.bytes_or_off)] = None
    """Bytes of WAL a second that the server may write; `None` is no limit."""
    alert_webhook: Annotated[str, _matching(_WEBHOOK, "https://host/path")] | None = Field(default=None, repr=False)
    """URL that a failed run is posted to as JSON."""
    alert_email: Annotated[tuple[str, ...], _text(_addresses)] = ()
    """Addresses that are told of a failed run."""
    smtp_url: Annotated[str, _matching(_MAIL_SERVER, "smtp://user:password@host:587")] | None = Field(
        default=None, repr=False
    )
    """The server that takes these e-mails. TLS is used wherever the server offers it, and always with `smtps://`."""
    alert_from: Annotated[str | None, _text(lambda text: _addresses(text)[0])] = None
    """Their sender; by default the first recipient."""
    keep_runs_days: _Whole = 90
    """Days after which the history of a run is forgotten."""
    thresholds: Annotated[InstanceOf[Thresholds], _text(Thresholds.parse)] = Field(default_factory=Thresholds)
    """What the figures of monitoring may be before a check fails."""
    newest_postgres: Annotated[Mapping[int, int], _text(quantities.minor_releases)] = Field(
        default_factory=lambda: {15: 20, 16: 16, 17: 12, 18: 6}
    )
    """The newest minor release of each major version of PostgreSQL."""
    server_memory: Annotated[int | None, _text(quantities.size)] = None
    """Bytes of memory of the target's machine; `None` is those of this one, where the target is on it."""
    backup_url: str | None = Field(default=None, repr=False)
    """Where backups go: the absolute path of a folder, or an fsspec URL such as `s3://bucket/folder`; `None` is a folder
    of `home`, see `backup_location`."""
    backup_key: str | None = Field(default=None, repr=False)
    """The age identity that backups are encrypted for, or the path of a file that holds it; `None` does not encrypt."""
    keep_backups_days: _Whole = 30
    """Days after which backups that nothing needs expire."""
    wal_dir: Path | None = None
    """Absolute path of the folder that a server of the user's own archives its WAL into."""
    pg_bin: Path | None = None
    """Absolute path of the folder with the programs of the target's PostgreSQL, in which base backups of a server that is
    not the embedded one are restored; by default the operating system's."""

    @model_validator(mode="after")
    def _sends(self) -> Self:
        if self.alert_email and self.smtp_url is None:
            raise ValueError("B44_ALERT_EMAIL needs a server to send by: set B44_SMTP_URL=smtp://host:25")
        return self

    @property
    def backup_location(self) -> str:
        """Where backups go: the path of a folder, or an fsspec URL, which may hold a password."""
        return str(self.home / "backups") if self.backup_url is None else self.backup_url

    @property
    def lineage_dir(self) -> Path:
        """The folder in which the origins of columns are kept."""
        return self.home / "lineage"

    @property
    def pace(self) -> Pace:
        """How hard a load may push: all that `throttle` brings with it, less what is set by itself."""
        preset = LIVE if self.throttle else Pace()
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
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leaves the arguments alone: only `load` reads the environment, that of its caller."""
        return (init_settings,)

    @classmethod
    def variable(cls, name: str) -> str:
        """The environment variable of a setting."""
        return str(cls.model_fields[name].validation_alias)

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        *,
        app: Path | None = None,
        **overrides: object,
    ) -> Self:
        """Reads the environment, the `.env` file, the app folder and the command line's options.

        Options stand above the environment, that above `.env`, that above `b44.toml`, that above defaults; only a folder that
        is named by `app` brings its `sql/` along whatever the environment says.

        Args:
            environ: The environment; by default that of the process.
            directory: Where the app folder is looked for, and what relative paths start from; by default the working directory.
            app: The app folder; by default the nearest of `directory` and the folders above it.
            overrides: Values that stand above the environment; `None` is as if not given.

        Raises:
            SettingsError: Naming the variable or option, and what would be right; never showing a URL's text.
        """
        return cls.load_with_origins(environ, directory, app=app, **overrides)[0]

    @classmethod
    def load_with_origins(
        cls,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        *,
        app: Path | None = None,
        **overrides: object,
    ) -> tuple[Self, Origins]:
        """As `load`, with where the settings come from.

        Args:
            environ: As of `load`, and so are the others.
            directory: See there.
            app: See there.
            overrides: See there.

        Returns:
            The settings, and their origins.

        Raises:
            SettingsError: As of `load`.
        """
        given, origins = cls._given(environ, directory, app, overrides)
        try:
            return cls(**given), origins
        except ValidationError as error:
            # Not chained: pydantic's error holds what was found, which may be a secret.
            raise SettingsError(cls._line(error, origins.given)) from None

    @classmethod
    def _given(
        cls,
        environ: Mapping[str, str] | None,
        directory: Path | None,
        app: Path | None,
        overrides: Mapping[str, object],
    ) -> tuple[dict[str, Any], Origins]:
        """The settings that are not as the program has them, by variable or option, and where they come from."""
        if unknown := overrides.keys() - cls.model_fields.keys():
            raise TypeError(f"there is no setting named {min(unknown)!r}")
        directory = (Path.cwd() if directory is None else directory).absolute()
        folder = find_app_folder(directory, app)
        base = directory if folder is None else folder.path
        names = {cls.variable(name): name for name in cls.model_fields}
        file, process = _dotenv(base / ".env"), os.environ if environ is None else environ
        of_file, of_process = cls._read(file, base), cls._read(process, directory)
        origins = {names.get(key, key): f"{key} in {base / '.env'}" for key in of_file}
        origins |= {names.get(key, key): key for key in of_process}
        given = of_file | of_process
        for name, value in overrides.items():
            if value is not None:
                given.pop(cls.variable(name), None)
                given[name] = _placed(name, name, value, directory)
                origins[name] = _OPTIONS.get(name, name)
        if folder is not None:
            if app is not None:
                given.pop(cls.variable("sql_dir"), None)
                origins.pop("sql_dir", None)
            if folder.export_dir is not None and "export_dir" not in given:
                given.setdefault(cls.variable("export_dir"), folder.export_dir)
                origins.setdefault("export_dir", str(folder.path / APP_FILE))
        sql_dir = packaged("sql") if folder is None else folder.sql_dir
        for name, default in (("sql_dir", sql_dir), ("home", base / ".b44")):
            if name not in given:
                given.setdefault(cls.variable(name), default)
        misspelt = _misspelt(file, names, f" in {base / '.env'}") | _misspelt(process, names, "")
        return given, Origins(origins, misspelt)

    @classmethod
    def _read(cls, found: Mapping[str, str | None], directory: Path) -> dict[str, Any]:
        """The settings among some variables, by variable, with paths that start from a folder."""
        source = EnvSettingsSource(cls)
        source.env_vars = {name: value.strip() for name, value in found.items() if value is not None and value.strip()}
        given: dict[str, Any] = source()
        names = {cls.variable(name): name for name in cls.model_fields}
        return {key: _placed(names.get(key, key), key, value, directory) for key, value in given.items()}

    def changed(self, **values: Any) -> Self:
        """The same settings with other values for some of them, which are named in errors as they are named here.

        Raises:
            SettingsError: As of `load`.
        """
        held: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        try:
            return type(self)(**(held | values))
        except ValidationError as error:
            raise SettingsError(self._line(error, {})) from None

    @classmethod
    def _line(cls, error: ValidationError, origins: Mapping[str, str]) -> str:
        """The first thing that is wrong, in one line: the variable or option, what is expected and what was found.

        Args:
            error: Of pydantic.
            origins: Where each setting comes from, by name.
        """
        first = error.errors(include_url=False)[0]
        expected = first.get("ctx", {}).get("error", first["msg"])
        if not first["loc"]:
            return str(expected)
        key = str(first["loc"][0])
        [(name, field)] = [
            (name, field) for name, field in cls.model_fields.items() if key in (name, field.validation_alias)
        ]
        line = f"{origins.get(name, key)} must be {expected}"
        if not field.repr:
            return line
        found = first["input"]
        return f"{line}, not {found!r}" if isinstance(found, str) else f"{line}, not {found}"


def _misspelt(found: Iterable[str], known: Collection[str], place: str) -> dict[str, str]:
    """Variables that are no setting's and nearly spelt as one, each with its place, and the variable that is meant."""
    strange = sorted(name for name in found if name.startswith("B44_") and name not in known)
    return {f"{name}{place}": meant for name in strange for meant in get_close_matches(name, known, 1, cutoff=0.8)}


def _dotenv(path: Path) -> dict[str, str | None]:
    """Returns the file's variables as written; none if there is no such file, or a virtual environment of that name."""
    if not path.is_file():
        return {}
    try:
        # Without interpolation, which pydantic-settings' own source makes, since a password may hold "${".
        return dict(dotenv_values(path, interpolate=False, encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text at byte {error.start}") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error


def _placed(name: str, key: str, value: Any, directory: Path) -> Any:
    """Returns a folder or file as an absolute path, other settings as they are.

    Links stay, so that one moved to a newer export is followed each time.

    Args:
        name: The setting.
        key: The variable or option that it was given by.
        value: A path; of `backup_url` also a URL, and of `backup_key` also a key, which are returned as they are.
        directory: What relative paths start from.

    Raises:
        SettingsError: It starts with the home directory of nobody.
    """
    if name not in (*_FOLDERS, "backup_url", "backup_key"):
        return value
    if (name == "backup_url" and "://" in str(value)) or (
        name == "backup_key" and str(value).upper().startswith("AGE-")
    ):
        return value
    try:
        path = directory / Path(value).expanduser()
    except RuntimeError as error:
        raise SettingsError(
            f"{_OPTIONS.get(key, key)} must be a path; the home directory in {str(value)!r} is unknown"
        ) from error
    return path if name in _FOLDERS else str(path)
