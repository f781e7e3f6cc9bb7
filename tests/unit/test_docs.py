"""The pages say what the program says: its commands, its settings; and their links lead somewhere."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click
import pytest
import yaml
from dagster import Definitions

from b44_assets.catalog.headers import HEADER_KEYS
from b44_assets.config.settings import Settings
from b44_assets.migration.checklists import CHECKLISTS
from b44_assets.orchestration.code_location import build_definitions
from tests.helpers.command_tree import commands

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(
    path
    for path in REPOSITORY.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)
)


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def prose(page: Path) -> str:
    """The page without its code."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`", "", text)


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables of a text, without their head."""
    cells = [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    ruled = [number for number, row in enumerate(cells) if all(set(cell) == {"-"} for cell in row)]
    return [row for number, row in enumerate(cells) if number not in ruled and number + 1 not in ruled]


def test_what_the_page_of_troubles_has_is_said_by_the_program_or_asked_by_a_test() -> None:
    sources = [*(REPOSITORY / "b44_assets").rglob("*.py"), *(REPOSITORY / "tests").rglob("*.py")]
    # Whole sentences, of strings over several lines.
    said = re.sub(r'"\s*\n\s*f?"', "", "\n".join(source.read_text() for source in sources if source != Path(__file__)))
    troubles = rows((DOCS / "troubleshooting.md").read_text())
    fragments = [
        (trouble, part.strip())
        for trouble, line, *_ in troubles
        for span in re.findall(r"`([^`]+)`", line)
        if not re.fullmatch(r"b44 \w+|B44_\w+|connect_timeout", span)
        for part in span.split("…")
    ]
    assert len(troubles) > 20
    assert [one for one in fragments if one[1] not in said] == []


# -- links -------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links to them, on a site and in a repository."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{named(page)}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{named(page)}: {target}"


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=named)
def test_a_page_of_the_site_links_to_pages_of_the_site_only(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).resolve().is_relative_to(DOCS), target


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), REPOSITORY / "README.md"], ids=named)
def test_every_file_of_the_code_that_a_page_names_is_there(page: Path) -> None:
    for name in re.findall(r"`((?:b44_assets|sql|tests|docs|examples|benchmarks)/[\w./]*)`", page.read_text()):
        assert (REPOSITORY / name).exists(), name


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), REPOSITORY / "README.md"], ids=named)
def test_pages_speak_in_the_terms_of_the_field(page: Path) -> None:
    home_made = r"\b(settl(e|es|ed|ing|ement)|prov(e|es|ed|en|ing)|proofs?|books|strays?|upkeep|contract|the guide)\b"
    assert re.findall(home_made, prose(page), re.IGNORECASE) == []


def test_the_site_has_every_page_and_fetches_no_font_from_elsewhere() -> None:
    site = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))

    assert site["theme"]["font"] is False
    assert sorted(re.findall(r"[\w-]+\.md", str(site["nav"]))) == sorted(page.name for page in DOCS.glob("*.md"))


def test_the_readme_is_a_front_page() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 120


# -- commands ----------------------------------------------------------------------------------------------------------


COMMANDS = list(commands())


def sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)\n", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_page_of_commands_has_every_command_and_no_other() -> None:
    assert sections("commands.md").keys() == dict(COMMANDS).keys()


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_a_command_is_described_as_its_help_does(name: str, command: click.Command) -> None:
    section = sections("commands.md").get(name, "")
    context = click.Context(command, info_name=name)

    usage = " ".join([name, *command.collect_usage_pieces(context)])
    assert f"```\n{usage}\n```" in section
    assert inspect.cleandoc(command.help or "") in section
    options = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    assert rows(section.replace("&lt;", "<")) == [
        [f"`{record[0]}`", re.sub(" +", " ", record[1])] for record in options if record
    ]


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_option_has_a_help_text(name: str, command: click.Command) -> None:
    assert [each.name for each in command.params if isinstance(each, click.Option) and not each.help] == []


# -- settings ----------------------------------------------------------------------------------------------------------

VARIABLES = {Settings.variable(name): field for name, field in Settings.model_fields.items()}


def described() -> dict[str, list[str]]:
    """The rows of the page of settings, by variable."""
    return {variable.strip("`"): rest for variable, *rest in rows((DOCS / "settings.md").read_text(encoding="utf-8"))}


def test_the_page_of_settings_has_every_variable_and_no_other() -> None:
    assert described().keys() == VARIABLES.keys()
    assert all(meaning and default for meaning, default in described().values())


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_default_of_a_variable_is_what_the_page_says(variable: str, tmp_path: Path) -> None:
    _, default = described()[variable]
    written = re.match(r"`([^`]+)`(?:;|$)", default)
    field = VARIABLES[variable]
    value = field.get_default(call_default_factory=True)

    if written is None:
        assert not value or field.is_required()
        return
    settings = Settings.load({variable: written[1]}, tmp_path)
    assert settings.pace == Settings.load({}, tmp_path).pace
    # Where a variable has none of its own, the throttle decides.
    assert value is None or settings == Settings.load({}, tmp_path)


def examples() -> dict[str, str]:
    lines = (REPOSITORY / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.removeprefix("# ").split("=", 1) for line in lines[1:])


def test_the_example_has_every_variable_with_a_value_that_can_be_used(tmp_path: Path) -> None:
    assert examples().keys() == VARIABLES.keys()
    Settings.load(examples(), tmp_path)


# -- checklists --------------------------------------------------------------------------------------------------------


def test_the_page_has_every_line_of_the_checklists_with_what_stands_for_it() -> None:
    said = [
        [line.text, ", ".join(f"`{name}`" for name in line.checks), line.stands]
        for lines in CHECKLISTS.values()
        for line in lines
    ]
    assert [list(row) for row in rows((DOCS / "checklists.md").read_text(encoding="utf-8"))] == said


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return build_definitions(Settings.load({}, Path("/nonexistent")))


def test_the_page_of_deployment_has_every_schedule_and_sensor_backups_first(definitions: Definitions) -> None:
    section = re.findall(
        r"^## What to turn on\n(.*?)^## ", (DOCS / "deployment.md").read_text(), re.DOTALL | re.MULTILINE
    )
    named = [re.findall(r"`(\w+)`", first) for first, _ in rows(section[0])]
    told = [name for names in named for name in names]
    there = [one.name for one in (*(definitions.schedules or ()), *(definitions.sensors or ())) if hasattr(one, "name")]
    assert sorted(told) == sorted(there)
    assert "logical_backup_schedule" in named[0]


def test_every_asset_and_check_that_a_checklist_names_is_there(definitions: Definitions) -> None:
    assets = {spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()}
    checks = {key.name for key in definitions.resolve_asset_graph().asset_check_keys}
    lines = [line for lines in CHECKLISTS.values() for line in lines]
    assert {name for line in lines for name in re.findall(r"(?:monitoring|backup)/\w+", line.stands)} <= assets
    assert {name for line in lines for name in line.checks} <= checks
    assert all(line.checks or line.stands for line in lines)
    stands = "\n".join(line.stands for line in lines)
    files = re.findall(r"\b(?:docs|sql)/[\w./-]*\w", stands)
    assert [name for name in files if not (REPOSITORY / name).exists()] == []
    assert set(re.findall(r"\bB44_\w+", stands)) <= VARIABLES.keys()
    assert {f"b44 {name}" for name in re.findall(r"\bb44 (\w+)", stands)} <= dict(COMMANDS).keys()
    jobs = {job.name for job in definitions.resolve_all_job_defs()}
    assert set(re.findall(r"\bjob (\w+)", stands)) <= jobs


# -- SQL files ---------------------------------------------------------------------------------------------------------

# Called by others of them only.
WITHIN = frozenset({"as_unusual_timestamp", "as_signed_integer"})


def test_every_header_of_a_file_is_described() -> None:
    text = (DOCS / "sql-files.md").read_text(encoding="utf-8")
    described = set(re.findall(r"`(?:-- )?([a-z_]+):", text))
    assert {key for keys in HEADER_KEYS.values() for key in keys} - described == set()


def test_every_conversion_of_exported_text_is_described() -> None:
    path = REPOSITORY / "b44_assets" / "runtime" / "migration" / "conversion_functions.sql"
    there = set(re.findall(r"^create or replace function migration\.(as_\w+)", path.read_text("utf-8"), re.MULTILINE))
    described = {
        name
        for row in rows((DOCS / "sql-files.md").read_text("utf-8"))
        for name in re.findall(r"`migration\.(as_\w+)`", row[0])
    }
    assert described == there - WITHIN
