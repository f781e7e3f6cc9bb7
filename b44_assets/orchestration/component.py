"""The graph of an app folder as a component of a team's own Dagster project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import dagster as dg
from pydantic import BaseModel, Field

from b44_assets import definitions_for


class ScaffoldParams(BaseModel):
    """What `dg scaffold` asks for."""

    folder: str = Field(default=".", description="The app folder, as b44 init writes it; relative to defs.yaml")


class Base44MigrationScaffolder(dg.Scaffolder[ScaffoldParams]):
    """Writes the `defs.yaml` of an app folder."""

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldParams]:
        """What can be said on the command line."""
        return ScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldParams]) -> None:
        """Writes the file."""
        dg.scaffold_component(request, {"folder": request.params.folder})


@dg.scaffold_with(Base44MigrationScaffolder)
class Base44Migration(dg.Component, dg.Model, dg.Resolvable):
    """An app that leaves Base44: exports, tables, checks, backups and monitoring, with jobs, schedules and sensors."""

    folder: Annotated[
        str,
        dg.Resolver.default(
            description="The app folder, as b44 init writes it (b44.toml, sql/); relative to this file.",
            examples=[".", "../../../blog"],
        ),
    ] = "."

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Makes the definitions of the folder.

        Raises:
            CatalogError: A file under its `sql/` breaks the form.
            SettingsError: A setting or its `b44.toml` cannot be used.
        """
        # The executor of the project's own assets is the project's matter.
        return definitions_for(Path(context.path, self.folder).resolve(), executor=False)
