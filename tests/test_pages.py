"""The pages that commands write, each opened in a browser: complete, silent, sourced, and no wider than a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from moeplan.cli import cli
from tests.chromium import CHROMIUM, Browser

BUDGET = ("--flops", "1e21", "--memory", "24GB")
COMMANDS = {
    "compare": ("compare", *BUDGET),
    "resources": ("compare", *BUDGET, "--equal", "resources"),
    "pair": ("compare", "qwen3-30b-a3b@36T", "deepseek-v3@14.8T"),
    "frontier": ("frontier", "--flops", "1e21", "--memory", "16GB..80GB", "--points", "4"),
    "granularity": ("frontier", *BUDGET, "--over", "granularity"),
    "backtest": ("backtest",),
}
"""Commands with a page, by what to call it."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, if there is one."""
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    browser = Browser()
    yield browser
    browser.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_page_is_whole(browser: Browser, tmp_path: Path, name: str) -> None:
    """It opens from disk under 6 MB with no complaint and one request; its charts are drawn; all numbers have a source.

    Numbers that point into the JSON are what --json prints there; on a phone nothing but tables scrolls sideways.
    """
    path = tmp_path / "page.html"
    done = CliRunner().invoke(cli, [*COMMANDS[name], "--html", str(path), "--json"])
    assert done.exit_code == 0, done.output
    assert path.stat().st_size < 6e6
    browser.media()
    browser.resize(1280)
    browser.open(path)
    complaints = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled", "Audits.issueAdded")
    assert browser.seen(*complaints) == []
    assert [event["request"]["url"] for event in browser.seen("Network.requestWillBeSent")] == [path.as_uri()]
    drawn = browser.js(
        "[...document.querySelectorAll('figure')].map(x => x.querySelectorAll('.js-line, .point path, .points path')"
        ".length)"
    )
    assert drawn
    assert all(drawn)
    assert browser.js("[...document.querySelectorAll('.n')].filter(x => !x.dataset.source).length") == 0
    assert browser.js("document.querySelectorAll('.n').length") > 40
    record = json.loads(browser.js("document.getElementById('record').textContent"))
    assert record == json.loads(done.stdout)
    wrong = browser.js("""(() => {
        const record = JSON.parse(document.getElementById("record").textContent);
        return [...document.querySelectorAll(".n[data-path]")].filter((number) => {
            let held = record;
            for (const key of number.dataset.path.split("/").slice(1)) held = held[key];
            return JSON.stringify(held) !== JSON.stringify(JSON.parse(number.dataset.value));
        }).length;
    })()""")
    assert wrong == 0
    browser.resize(360)
    browser.open(path)
    assert browser.js("document.documentElement.scrollWidth") <= 360
