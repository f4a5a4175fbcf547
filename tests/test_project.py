"""What the project promises about its own files: pinned versions, no silent skips, one test command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent


def pins() -> dict[str, str]:
    """Version by normalised name in constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (line.split("==") for line in lines)}


def project() -> dict[str, object]:
    """The project table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def needed(names: list[str]) -> set[str]:
    """Normalised names of `names` and all they require on this machine, as installed."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name not in found:
            found.add(name)
            below = [Requirement(text) for text in requires(requirement.name) or ()]
            waiting += [r for r in below if not r.marker or r.marker.evaluate({"extra": ""})]
    return found


def test_constraints_pin_everything_that_tests_install() -> None:
    """Every package that `.[test]` brings, directly or through another, has its version in constraints.txt."""
    table = project()
    wanted = needed([*table["dependencies"], *table["optional-dependencies"]["test"]])
    assert wanted - set(pins()) == set()


def test_constraints_satisfy_the_declared_ranges() -> None:
    """Every pinned version lies in the range that pyproject.toml declares, torch's and the groups' too."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lists = [*table["project"]["optional-dependencies"].values(), *table["dependency-groups"].values()]
    declared = [*table["project"]["dependencies"], *(r for names in lists for r in names if isinstance(r, str))]
    for requirement in map(Requirement, declared):
        if requirement.name == "moeplan":  # with an extra, in a group
            continue
        assert Version(pins()[requirement.name.lower()]) in requirement.specifier, requirement


@pytest.mark.skipif(os.name == "nt", reason="a bash script")
def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    """The command under "Run the tests" in the README stands in .ci/run word for word."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = next(line for line in readme.splitlines() if "constraints.txt" in line and "pytest" in line)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command in [line.strip() for line in script.splitlines()]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


SKIPS = """
import pytest

def test_passes():
    pass

def test_skips():
    pytest.skip("no reason")

@pytest.mark.skipif(True, reason="no reason")
def test_is_marked():
    pass
"""


@pytest.mark.parametrize("required", ["1", ""])
def test_a_skip_fails_where_all_tests_are_required(tmp_path: Path, required: str) -> None:
    """With MOEPLAN_REQUIRE_ALL a skipped test or module fails the run; without, it does not."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(SKIPS, encoding="utf-8")
    (tmp_path / "test_module.py").write_text('import pytest\npytest.importorskip("no_such_module")\n', encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    environment = {**os.environ, "MOEPLAN_REQUIRE_ALL": required, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == bool(required), done.stdout
    assert ("MOEPLAN_REQUIRE_ALL is set" in done.stdout) == bool(required), done.stdout
