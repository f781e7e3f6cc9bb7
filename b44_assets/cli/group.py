"""The command group: reads options, runs a command, and turns errors into one line and an exit status."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from b44_assets.cli.options import with_origins
from b44_assets.cli.terminal import print_line
from b44_assets.errors import B44Error, NoRoomError, is_full, why

INTERRUPTED = 130


class Group(click.Group):
    """Turns errors in the use of the command, and our own, into one line and an exit status; its help has sections."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections or {}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands in sections, in the order in which one needs them."""
        width = max(map(len, self.commands), default=0)
        for title, names in self._sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (f"{name:{width}}", self.commands[name].get_short_help_str(limit=formatter.width))
                        for name in names
                    ]
                )

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Reads the options before the command's name."""
        with _errors_in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        with _errors_in_one_line():
            return super().invoke(ctx)


@contextmanager
def _errors_in_one_line() -> Generator[None]:
    try:
        yield
    except B44Error as error:
        _fail(str(error), error.exit_status)
    except click.ClickException as error:
        said = error.format_message()
        # A command that was given nothing at all shows its help.
        if "\n" in said:
            raise
        if isinstance(error, click.UsageError) and error.ctx is not None and "Did you mean" not in said:
            said = f"{said.rstrip('.')}; {_hint(error, error.ctx)}"
        _fail(said, error.exit_code)
    except OSError as error:
        if not is_full(error):
            raise
        # Whatever of ours it was that was to be written: settings, Dagster's files, what is spooled on the way.
        _fail(f"{error.filename or 'a file'} cannot be written: {why(error)}", NoRoomError.exit_status)
    except (KeyboardInterrupt, click.Abort):
        # Of click: Ctrl-C, or the end of what is typed, where it was to ask.
        click.echo("interrupted; run the same command again to go on", err=True)
        raise SystemExit(INTERRUPTED) from None


def _hint(error: click.UsageError, context: click.Context) -> str:
    # Of no other kind is an argument too many.
    if type(error) is click.UsageError and any(option.name == "export" for option in context.command.params):
        return "an export is named by --export DIR"
    return f"{context.command_path} --help says what there is"


def _fail(reason: str, status: int) -> NoReturn:
    print_line(f"b44: {with_origins(reason)}", err=True)
    raise SystemExit(status) from None
