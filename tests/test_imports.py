"""Imports go one way: each floor of the package knows those below it alone, and no ring of modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "moeplan"
FLOORS = (
    {"", "errors", "estimates", "files", "modules", "notebook", "numerics", "quantities", "records", "texts", "units"},
    {"architecture"},
    {"laws"},
    {"cost"},
    {"plan"},
    {"studies", "fitting"},
    {"verification"},
    {"report"},
    {"planner"},
    {"cli"},
    {"__main__"},
)
"""From the ground up; floors of one set do not know each other."""
EXCEPTIONS = {("notebook", "plan.candidates"), ("notebook", "report.notebook")}
"""What a notebook asks of an answer by its class: to show itself, to be drawn, to be searched again."""


def modules() -> dict[str, Path]:
    """Every module by its name below the package; the package itself is the empty name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules that one imports anywhere: at its top, inside functions, for type checkers alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("moeplan.") in known else node.module or "" for name in below]
        else:
            continue
        for name in names:
            if name.partition(".")[0] == "moeplan":
                yield name.removeprefix("moeplan").removeprefix(".")


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    """What each module imports of the package, but for the exceptions."""
    known = modules()
    found = {name: set(imports(path, known)) - {name} for name, path in known.items()}
    for module, above in EXCEPTIONS:
        found[module].remove(above)  # which is there
    return found


def floor(module: str) -> int:
    """The floor of a module."""
    (number,) = [number for number, names in enumerate(FLOORS) if module.partition(".")[0] in names]
    return number


def test_imports_lead_down(arrows: dict[str, set[str]]) -> None:
    """No module imports one of a higher floor, or of another part of its own floor."""
    for module, imported in arrows.items():
        for name in imported:
            inside = module.partition(".")[0] == name.partition(".")[0] or floor(module) == floor(name) == 0
            assert floor(name) < floor(module) or inside, f"moeplan.{module} imports moeplan.{name}"


def test_no_modules_import_each_other(arrows: dict[str, set[str]]) -> None:
    """The modules can be put in an order in which each imports earlier ones alone."""
    assert len(tuple(TopologicalSorter(arrows).static_order())) == len(arrows)
