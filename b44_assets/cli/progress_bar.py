"""The bar that a terminal shows of a command's progress."""

from __future__ import annotations

from collections.abc import Generator

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from b44_assets.cli.progress import State
from b44_assets.cli.terminal import new_console


class Bar(Progress):
    """The steps as a bar, and beneath it what is under way; both are gone when it ends."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._task: TaskID | None = None
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=new_console(stderr=True),
            transient=True,
        )
        self._task = self.add_task("starting", total=None)

    def get_renderables(self) -> Generator[RenderableType]:
        """The bar, and the line."""
        state = self._state
        if self._task is not None:
            total = state.steps or state.total or None
            completed = state.completed if state.steps else state.done
            self.tasks[0].description, self.tasks[0].total, self.tasks[0].completed = (
                state.described(),
                total,
                completed,
            )
        yield self.make_tasks_table(self.tasks)
        yield Text(state.detail() if state.phase else state.under_way())
