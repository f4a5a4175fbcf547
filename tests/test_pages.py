"""The pages that commands write, each opened in a browser: complete, silent, sourced, and no wider than a phone."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from moeplan.cli import cli
from moeplan.laws import load_law
from moeplan.report.blocks import Chart
from moeplan.report.pictures import write_page
from moeplan.report.screen.verification import verification_summary
from moeplan.report.verification import verification_sections
from tests.chromium import Browser
from tests.test_verify_estimate import studied

BUDGET = ("--flops", "1e21", "--memory", "24GB")
COMMANDS = {
    "compare": ("compare", *BUDGET),
    "resources": ("compare", *BUDGET, "--equal", "resources"),
    "pair": ("compare", "qwen3-30b-a3b@36T", "deepseek-v3@14.8T"),
    "frontier": ("frontier", "--flops", "1e21", "--memory", "16GB..80GB", "--points", "4"),
    "granularity": ("frontier", *BUDGET, "--over", "granularity"),
    "backtest": ("backtest",),
    "fit": ("fit", "RUNS", "--form", "additive_power_law", "--draws", "50"),
}
"""Commands with a page, by what to call it."""
PAPERS = {"A4": (210 / 25.4, 297 / 25.4), "Letter": (8.5, 11.0)}
"""Width and height [inches]."""


def runs_file(path: Path) -> str:
    """Runs of a known law, its losses moved by half a per cent to and fro."""
    law = load_law("besiroglu2024").predicting("loss")
    sizes = [(size, size * ratio) for size in (1e8, 3e8, 1e9, 3e9) for ratio in (5, 10, 20, 40, 80)]
    rows = [
        f"{size:g},{tokens:g},{law(size, tokens) * (1.005 if place % 2 else 0.995):.6f}"
        for place, (size, tokens) in enumerate(sizes)
    ]
    path.write_text("\n".join(["total_params,tokens,loss", *rows]) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", COMMANDS)
def test_page_is_whole(browser: Browser, tmp_path: Path, name: str) -> None:
    """It opens from disk under 3 MB with no complaint and one request; its charts are drawn; all numbers have a source.

    Numbers that point into the JSON are what --json prints there; on a phone nothing but tables scrolls sideways. On
    paper two pages at most come before the whole.
    """
    path = tmp_path / "page.html"
    words = [runs_file(tmp_path / "runs.csv") if word == "RUNS" else word for word in COMMANDS[name]]
    done = CliRunner().invoke(cli, [*words, "--html", str(path), "--json"])
    assert done.exit_code == 0, done.output
    assert path.stat().st_size < 3e6
    browser.media()
    browser.resize(1280)
    browser.open(path)
    complaints = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled", "Audits.issueAdded")
    assert browser.seen(*complaints) == []
    assert [event["request"]["url"] for event in browser.seen("Network.requestWillBeSent")] == [path.as_uri()]
    drawn = browser.js("""[...document.querySelectorAll("figure:not(.summary figure)")].map(
        figure => [...figure.querySelectorAll("svg.plot .p")].filter(mark => {
            const {width, height} = mark.getBoundingClientRect();
            return width > 0 && height > 0;
        }).length
    )""")
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
    hold_on_paper(browser, tmp_path / "page.pdf")
    browser.resize(360)
    browser.open(path)
    assert browser.js("document.documentElement.scrollWidth") <= 360


def hold_on_paper(browser: Browser, pdf: Path) -> None:
    """The page that is open prints a summary of at most two pages, its sources as notes, before the whole."""
    for paper, (wide, high) in PAPERS.items() if shutil.which("pdftotext") else ():
        made = browser.send("Page.printToPDF", paperWidth=wide, paperHeight=high, printBackground=True)["data"]
        pdf.write_bytes(base64.b64decode(made))
        told = ["pdftotext", "-layout", pdf, "-"]
        pages = subprocess.run(told, capture_output=True, text=True, check=True).stdout.rstrip("\f\n").split("\f")
        first = next(at for at, one in enumerate(pages) if "Appendix: the whole answer" in one)
        assert first in (1, 2), paper
        assert "Notes" in "".join(pages[:first])
        assert "[1] " in "".join(pages[:first])


def test_a_verification_prints_a_summary(browser: Browser, tmp_path: Path) -> None:
    """What a study measured stands on at most two pages, the predicted leverage and the chart beside it."""
    found, _ = studied(1.5, controls=True)
    sections = verification_sections(found)
    summary = verification_summary(found, sections)
    shown = [block for section in summary for block in section.blocks]
    assert [block.title for block in shown if isinstance(block, Chart)] == [
        "Efficiency Leverage, measured and predicted"
    ]
    write_page(str(tmp_path / "page.html"), sections, title="t", data=found.to_json(), summary=summary)
    browser.media()
    browser.resize(1280)
    browser.open(tmp_path / "page.html")
    hold_on_paper(browser, tmp_path / "page.pdf")
