"""The pages that people read say what the code does."""

import re
import tomllib
from pathlib import Path

import pytest

from service.domain import errors
from service.domain.lifecycle import TRANSITIONS
from service.doors.statuses import STATUS
from service.settings import Settings

ROOT = Path(__file__).parents[2]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = ("\n" + (ROOT / page).read_text()).split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_setting_has_its_line_in_the_readme_and_the_readme_has_no_other() -> None:
    documented = {row[0].strip("`") for row in rows("README.md", "## Settings")}
    named = {
        {"host": "HOST", "port": "PORT"}.get(name, f"KLINGEL_{name.upper()}")
        for name in Settings.model_fields
    }
    assert documented == named


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (f"KLINGEL_{name.upper()}", field)
        for name, field in Settings.model_fields.items()
        if isinstance(field.default, float)
    ],
)
def test_a_default_in_the_readme_is_the_default(name: str, field: object) -> None:
    shown = {row[0].strip("`"): row[1] for row in rows("README.md", "## Settings")}
    assert float(shown[name].strip("`")) == field.default  # type: ignore[attr-defined]


def test_every_dependency_says_why_it_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    def names(wanted: list[str]) -> set[str]:
        return {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in wanted}

    assert {row[0] for row in rows("docs/dependencies.md", "## To run")} == names(
        project["project"]["dependencies"]
    )
    extras = names([line for extra in project["project"]["optional-dependencies"].values() for line in extra])
    assert {row[0] for row in rows("docs/dependencies.md", "## Extras")} == extras
    groups = project["dependency-groups"]
    listed = {row[0] for row in rows("docs/dependencies.md", "## To build and test")}
    told = names(project["project"]["dependencies"]) | extras
    assert listed == names(groups["build"] + groups["test"] + groups["docs"]) - told


def leaves(kind: type[errors.KlingelError]) -> set[type[errors.KlingelError]]:
    return {kind} | {leaf for below in kind.__subclasses__() for leaf in leaves(below)}


def test_every_problem_has_its_line_with_its_status() -> None:
    documented = {row[0].strip("`"): int(row[1]) for row in rows("docs/problems.md", "# Problems")}
    raised = {
        f"/problems/{kind.code}": next(STATUS[base] for base in kind.__mro__ if base in STATUS)
        for kind in leaves(errors.KlingelError) - {errors.KlingelError}
    }
    assert documented == raised


def test_the_state_diagram_is_the_table() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): (\w+)$", (ROOT / "docs/states.md").read_text(), re.MULTILINE)
    assert {(before, signal, after) for before, after, signal in drawn} == {
        (str(before), str(signal), str(after)) for (before, signal), after in TRANSITIONS.items()
    }


def test_no_requirement_names_an_address() -> None:
    for name in ("run.txt", "test.txt", "docs.txt", "uv.txt"):
        assert "://" not in (ROOT / "requirements" / name).read_text()


def test_continuous_integration_calls_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert re.search(r"^make test ", (ROOT / "README.md").read_text(), re.MULTILINE)
