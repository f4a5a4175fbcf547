"""What holds for every test: no skips where everything must run, repeatable property tests, one browser."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator, Iterator
from typing import TypeVar

import pytest
from hypothesis import settings

from tests import processes  # noqa: F401  children are to hear Ctrl-C
from tests.chromium import CHROMIUM, Browser

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

REQUIRE_ALL = os.environ.get("MOEPLAN_REQUIRE_ALL", "") not in ("", "0")
"""Whether a skipped test fails the run, as in continuous integration."""

# These import torch, which the extra `test` does not bring; `pytest -m verify` runs where it is installed.
collect_ignore = (
    []
    if importlib.util.find_spec("torch")
    else ["test_verify_data.py", "test_verify_large.py", "test_verify_model.py", "test_verify_train.py"]
)

# A machine that is busy with something else must not fail a property; there, examples are the same in every run.
settings.register_profile("moeplan", deadline=None, derandomize=REQUIRE_ALL)
settings.load_profile("moeplan")


def _refuse_skip(report: Report) -> Report:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, but MOEPLAN_REQUIRE_ALL is set: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail skipped tests if all are required."""
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail skipped modules if all are required."""
    return _refuse_skip((yield))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, if there is one."""
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    browser = Browser()
    yield browser
    browser.close()
