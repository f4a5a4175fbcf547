"""The report page: one file that asks for nothing, whose every number says where it comes from; seen in a browser."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from moeplan import quantities
from moeplan.cli import cli
from moeplan.laws import load_law
from moeplan.plan.document import Plan, read_plan
from moeplan.report import blocks
from moeplan.report.blocks import Chart, Paragraph, Section, Series, Table
from moeplan.report.charts import charts_of
from moeplan.report.page import numbers_without_source, page_html
from moeplan.report.page.elements import pointed_at
from moeplan.report.page.numbers import pieces
from moeplan.report.plan_page import page_sections, page_title, plan_card, plan_charts, write_plan
from moeplan.report.text import Number, Source, Text
from moeplan.units import format_bytes, format_count, format_flops
from tests.chromium import Browser
from tests.sample import sample_plan


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a plan made by hand."""
    path = tmp_path_factory.mktemp("page") / "plan.html"
    write_plan(sample_plan(), plot=None, html=str(path))
    return path


class _Page(HTMLParser):
    """Numbers and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[dict[str, str]] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.attributes |= set(values)
        self.links += [values[name] for name in ("href", "src", "action") if name in values]
        if tag == "span" and values.get("class") == "n":
            self.numbers.append(values | {"text": ""})
            self._open = True

    def handle_data(self, data: str) -> None:
        if self._open:
            self.numbers[-1]["text"] += data

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "span"


@pytest.fixture(scope="module")
def parsed(page: Path) -> _Page:
    """The page's markup, read."""
    return _Page(page.read_text(encoding="utf-8"))


def written(value: float) -> Iterator[str]:
    """Every way in which a report writes a value."""
    for digits in (2, 3, 4):
        yield from (write(value, digits) for write in (quantities.number, format_count, format_flops, format_bytes))
        yield quantities.BYTES.text(value, digits)
        yield from (quantities.times(value, digits), quantities.scientific(value, digits))
        yield from (quantities.percent(value, digits), quantities.percent(value, digits).removesuffix(" %"))
    yield from (quantities.times(value), quantities.scientific(value), f"{value:,.0f}", f"{value:.2f}")


# ---------------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("Train a 35.6B-A3.02B MoE on 553B tokens", ["35.6B", "3.02B", "553B"]),
        ("6.10x* (90 % interval 5.11–7.29) by tian2025", ["6.10x*", "90 %", "5.11", "7.29"]),
        ("8+1/184 experts, 8x80GB, 24 x 2,048", ["8+1/184", "8x80GB", "24", "2,048"]),
        ("moeplan 0.1.0, grid 0123456789abcdef of H100, bf16, Qwen3-30B-A3B", []),
        ("+3.4 %, 1.00e-9 and -2. 64GiB", ["+3.4 %", "1.00e-9", "-2", "64GiB"]),
    ],
)
def test_numbers_are_found_in_words(text: str, numbers: list[str]) -> None:
    """A number is taken with its unit and flag; names that hold digits are none."""
    assert [piece for is_number, piece in pieces(text) if is_number] == numbers
    assert "".join(piece for _, piece in pieces(text)) == text


def test_every_number_has_a_source() -> None:
    """No number of a plan's page is without one."""
    plan = sample_plan()
    assert numbers_without_source(page_sections(plan), plan.to_json(), plan_card(plan)) == []


def test_a_number_without_a_source_is_told() -> None:
    """The check finds a bare number, and takes a source from cell, column, table and section in this order."""
    says = [Source(name) for name in ("cell", "column", "table", "section")]
    table = Table((("a", Text("1", says[0]), "2", "3"),), sources=(None, None, says[1]))
    assert numbers_without_source([Section("T", (table,))], {}) == ["3 in '3'"]
    html = page_html([Section("T", (dataclasses.replace(table, source=says[2]), Paragraph("4")), source=says[3])],
                     title="t", data={})  # fmt: skip
    assert [(n["text"], n["data-source"]) for n in _Page(html).numbers] == [
        ("1", "1"),
        ("2", "2"),
        ("3", "3"),
        ("4", "4"),
    ]
    listed = re.findall(r'<li id="source-(\d)"><p>(\w+)</p>', html)
    assert listed == [("1", "cell"), ("2", "column"), ("3", "table"), ("4", "section")]


def test_shown_numbers_are_the_jsons(parsed: _Page) -> None:
    """Every number that points into the JSON is that value, written as reports write it; most numbers point there."""
    data = sample_plan().to_json()
    pointing = [number for number in parsed.numbers if "data-path" in number]
    for number in pointing:
        value = pointed_at(data, number["data-path"])
        assert json.loads(number["data-value"]) == value
        if isinstance(value, str):  # a memory limit, as it was given
            assert number["text"] == value
        else:
            assert number["text"].rstrip("*") in set(written(value)), number
    assert len(pointing) > 200
    assert len(pointing) > 0.75 * len(parsed.numbers)


def test_a_path_into_nothing_is_refused() -> None:
    """A source that points where the JSON holds nothing is a mistake of ours and makes no page."""
    table = Table((("a", Text("1", numbers=[(0, Number(1, "1", "/design/nothing"))])),), source=Source("s"))
    with pytest.raises(LookupError):
        page_html([Section("T", (table,))], title="t", data={"design": {}})
    assert pointed_at({"a/b": [{"c~d": 5}]}, "/a~1b/0/c~0d") == 5


def test_laws_speak_from_their_files(page: Path) -> None:
    """Citation, grade and measured range of each law behind a number are those of its file."""
    text = page.read_text(encoding="utf-8")
    for name in ("tian2025", "zhao2025", "abnar2025", "clark2022", "steplaw2025"):
        law = load_law(name)
        item = re.search(rf'<li id="law-{name}">(.*?)</li>', text)
        assert item
        plain = re.sub(r"<[^>]+>", "", item[1]).replace("&amp;", "&")
        for said in (str(law.citation), f"{law.grade}: ", law.title, law.digest):
            assert said in plain


def test_a_law_that_is_gone_is_only_named() -> None:
    """A plan made with a law file that is no longer there still makes a page, whose link to it holds."""
    source = Source("By a law of mine.", "my law/<1>.yaml")
    html = page_html([Section("T", (Paragraph("1", source),))], title="t", data={})
    assert '<li id="law-my-law-1-yaml"><p><b>my law/&lt;1&gt;.yaml</b></p></li>' in html
    assert '<a href="#law-my-law-1-yaml">my law/&lt;1&gt;.yaml</a>' in html


def test_page_is_small_whole_and_repeatable(page: Path, parsed: _Page, tmp_path: Path) -> None:
    """Under 400 kB; the same plan makes the same bytes; nothing refers outside; no inline styles or handlers."""
    again = tmp_path / "again.html"
    write_plan(Plan.from_json(json.loads(json.dumps(sample_plan().to_json()))), plot=None, html=str(again))
    assert again.read_bytes() == page.read_bytes()
    assert page.stat().st_size < 400_000
    assert all(link.startswith("#") for link in parsed.links)
    assert not {name for name in parsed.attributes if name == "style" or name.startswith("on")}
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page.read_text(encoding="utf-8"))
    assert policy
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert not re.search(r"https?:", policy[1])


def test_page_without_charts_is_small() -> None:
    """A report without charts is a small page, and no text of it ends a script."""
    html = page_html([Section("T", (Paragraph("words"),))], title="t", data={"a": "</script><b>"})
    assert len(html) < 40_000
    assert "</script><b>" not in html


def test_pictures_hold_every_point_with_its_source(page: Path) -> None:
    """Every point of every chart stands in the page, at both widths, with words and the number of a listed source."""
    text = page.read_text(encoding="utf-8")
    for place, chart in enumerate(charts_of(page_sections(sample_plan()))):
        part = text.split(f'id="chart-{place}"')[1].split("</figure>")[0]
        points = sum(y is not None and (not chart.stacked or y > 0) for series in chart.series for y in series.y)
        found = re.findall(r'<g class="p" data-source="(\d+)" data-name="[^"]+"><title>[^<]+</title>', part)
        assert len(found) == 2 * points
        assert all(f'id="source-{number}"' in text for number in found)


# ---------------------------------------------------------------------------------------------------- the browser


@pytest.fixture
def shown(browser: Browser, page: Path) -> Browser:
    """The page on a wide window in light colours, as it was opened."""
    browser.media()
    browser.resize(1280)
    if browser.js("location.href") != page.as_uri():
        browser.open(page)
    browser.js("document.getElementById('close').click(); document.activeElement.blur(); scrollTo(0, 0);"
               "delete document.documentElement.dataset.theme; getSelection().removeAllRanges()")  # fmt: skip
    return browser


def panel(browser: Browser) -> str:
    """What the open panel says; "" if it is closed."""
    return browser.js("document.getElementById('panel').hidden ? '' : document.getElementById('panel').innerText")


def test_page_opens_from_disk_without_a_complaint(shown: Browser, page: Path) -> None:
    """No error, no refusal by the policy, no message on the console, and no request but that for the file itself."""
    shown.open(page)
    assert (
        shown.seen("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled", "Audits.issueAdded") == []
    )
    assert [event["request"]["url"] for event in shown.seen("Network.requestWillBeSent")] == [page.as_uri()]
    assert shown.js("document.documentElement.scrollWidth") <= 1280


def test_policy_stops_what_is_foreign(shown: Browser, page: Path) -> None:
    """A script, a style or a request that somebody adds to the page does not run."""
    shown.js("""(() => {
        const script = document.createElement("script"), image = new Image();
        script.textContent = "window.foreign = 1";
        document.body.append(script);
        image.src = "https://example.invalid/x.png";
    })()""")
    assert shown.js("window.foreign === undefined")
    assert shown.js("fetch('https://example.invalid/').then(() => 'reached', () => 'refused')") == "refused"
    said = " ".join(event["entry"]["text"] for event in shown.seen("Log.entryAdded"))
    assert said.count("Content Security Policy") >= 2
    shown.open(page)


def test_charts_are_drawn(shown: Browser) -> None:
    """Every chart has its points, bars and stretches as shapes of visible size, and its labels in words."""
    charts = {chart.title: chart for chart in plan_charts(sample_plan())}
    titles = shown.js("[...document.querySelectorAll('main > :not(.summary) figcaption')]"
                      ".map(x => x.firstChild.textContent.trim())")  # fmt: skip
    assert sorted(titles) == sorted(charts)
    for place, title in enumerate(titles):
        chart, figure = charts[title], f"#chart-{place} .wide"
        count = f"document.querySelectorAll('{figure} %s').length"
        for kind, shape in (("bars", ".series .bar"), ("points", ".series .dot"), ("line", ".series .stretch")):
            drawn = sum(y is not None and (kind != "bars" or y > 0)
                        for series in chart.series if series.kind == kind for y in series.y)  # fmt: skip
            assert shown.js(count % shape) == drawn
        labels = shown.js(f"[...document.querySelectorAll('{figure} .label')].map(x => x.textContent)")
        assert sorted(labels) == sorted(chart.labels)
        box = shown.js(f"(() => {{ const b = document.querySelector('{figure}').getBoundingClientRect();"
                       "return [b.width, b.height]; })()")  # fmt: skip
        assert box[0] > 600
        assert box[1] > 60


def test_numbers_are_quiet_until_somebody_asks(shown: Browser) -> None:
    """No number is underlined but under the pointer or with the focus; the button underlines all, and takes it back."""
    underlined = "[...document.querySelectorAll('.n')].filter(x => x.checkVisibility() && " \
                 "!getComputedStyle(x).textDecorationColor.includes('rgba(0, 0, 0, 0)')).length"  # fmt: skip
    shown.send("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert shown.js(underlined) == 0
    shown.click("#marks")
    assert shown.js(underlined) > 200
    assert shown.js("document.getElementById('marks').getAttribute('aria-pressed')") == "true"
    shown.click("#marks")
    shown.send("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert shown.js(underlined) == 0


def test_pointer_and_legend_of_a_chart(shown: Browser) -> None:
    """Over a point a box says it; a series can be hidden by the legend, by mouse and by keyboard, and comes back."""
    x, y = shown.js("(() => { const e = document.querySelector('#chart-1 .wide .series .dot');"
                    "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
                    "return [b.x + b.width / 2, b.y + b.height / 2]; })()")  # fmt: skip
    shown.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert "3.21x" in shown.js(
        "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"
    )
    shown.send("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert shown.js("document.getElementById('tip').hidden")
    hidden = "document.querySelectorAll('#chart-1 .wide .series.off').length"
    shown.click("#chart-1 .wide .key[data-look='1']")
    assert shown.js(hidden) == 1
    shown.js("document.querySelector('#chart-1 .wide .key[data-look=\"1\"]').focus()")
    shown.press("Enter")
    assert shown.js(hidden) == 0


def test_click_on_a_number_opens_its_source(shown: Browser) -> None:
    """The panel says the number, what it is, the law with citation and grade, how it is counted, and its JSON."""
    shown.click('.n[data-path="/leverage/others/0/efficiency_leverage"]')
    said = panel(shown)
    law = load_law("abnar2025")
    for text in ("3.46x*", "abnar2025", str(law.citation), law.grade, "Counted as", "outside the measured range",
                 "/leverage/others/0/efficiency_leverage", "3.456", "extrapolated"):  # fmt: skip
        assert text in said
    shown.click("#panel-value")
    assert panel(shown)
    shown.click("h2")
    assert panel(shown) == ""


def test_every_number_opens_a_panel_that_says_something(shown: Browser) -> None:
    """Each of the page's numbers, pressed, fills the panel with its own words and its JSON's value."""
    wrong = shown.js("""(() => {
        const record = JSON.parse(document.getElementById("record").textContent), wrong = [];
        for (const number of document.querySelectorAll(".n")) {
            number.click();
            const find = (id) => document.getElementById(id).textContent.trim();
            const { path, value } = number.dataset;
            let held = record;
            for (const key of path ? path.split("/").slice(1) : []) held = held[key];
            const right = find("panel-value") === number.textContent && find("panel-what") && find("panel-says") &&
                (!path || (JSON.stringify(held) === JSON.stringify(JSON.parse(value)) &&
                           find("panel-record").includes(value)));
            if (!right) wrong.push(number.outerHTML);
        }
        return [wrong, document.querySelectorAll(".n").length];
    })()""")
    assert wrong[0] == []
    assert wrong[1] > 250


def test_keyboard_reaches_opens_and_closes(shown: Browser) -> None:
    """Tab reaches a number with a visible ring; Enter and Space open, Escape closes and gives the focus back."""
    shown.js("document.querySelector('.skip').focus()")
    tabs = 0
    while not shown.js("document.activeElement.matches('.card .n')"):
        shown.press("Tab")
        tabs += 1
        assert tabs < 60
    assert shown.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    path = shown.js("document.activeElement.dataset.path")
    for key in ("Enter", " "):
        shown.press(key)
        assert "tian2025" in panel(shown)
        assert shown.js("document.activeElement.id") == "close"
        assert shown.js("document.querySelectorAll('[aria-expanded=true]').length") == 1
        shown.press("Escape")
        assert panel(shown) == ""
        assert shown.js("document.activeElement.dataset.path") == path
    shown.press("Tab")
    assert shown.js("document.activeElement.dataset.path") == "/leverage/pooled/low"
    shown.js("document.querySelector('.n[data-path=\"/bands/0/value\"]').focus()")
    shown.press("ArrowDown")
    assert shown.js("document.activeElement.dataset.path") == "/bands/1/value"
    shown.press("ArrowRight")
    assert shown.js("document.activeElement.dataset.path") == "/bands/1/low_1"


def test_points_of_a_chart_can_be_asked(shown: Browser) -> None:
    """A click on a bar of a chart opens its source."""
    shown.click("#chart-2 .wide .series[data-look='1'] .bar")
    said = panel(shown)
    assert "other weights, the plan: 302MB" in said
    assert "no law is involved" in said


def test_light_and_dark(shown: Browser) -> None:
    """The page follows the system's colours until the button is pressed; text keeps its contrast, charts too."""
    contrast = """(() => {
        const light = (c) => { const [r, g, b] = c.match(/\\d+/g).map((x) => (x / 255) ** 2.2);
                               return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05; };
        const paper = light(getComputedStyle(document.body).backgroundColor);
        const ratio = (e, what) => {
            const x = light(getComputedStyle(e)[what]);
            return Math.max(x, paper) / Math.min(x, paper);
        };
        return [paper > 0.5, ratio(document.body, "color"), ratio(document.querySelector(".small"), "color"),
                ratio(document.querySelector(".wide .xtick"), "fill")];
    })()"""
    for scheme in ("light", "dark"):
        shown.media(scheme=scheme)
        is_light, *ratios = shown.js(contrast)
        assert is_light == (scheme == "light")
        assert min(ratios) > 4.5  # WCAG 2, level AA
    shown.click("#theme")
    assert shown.js(contrast)[0]
    assert shown.js("document.getElementById('theme').textContent") == "Dark"


@pytest.mark.parametrize("width", [360, 390, 768])
def test_phone_needs_no_sideways_scrolling(browser: Browser, page: Path, width: int) -> None:
    """At a phone's width the page is no wider, charts and panel fit, and wide tables scroll in their own box."""
    browser.media()
    browser.resize(width, 780)
    browser.open(page)
    assert browser.js("document.documentElement.scrollWidth") <= width
    wide = browser.js("[...document.querySelectorAll('.chart .plot, .chart text')].filter(x => x.checkVisibility() && "
                      ""
                      f"x.getBoundingClientRect().right > {width}).length")  # fmt: skip
    assert wide == 0
    browser.click(".card .n")
    left, right, bottom = browser.js("(() => { const b = document.getElementById('panel').getBoundingClientRect();"
                                     "return [b.left, b.right, b.bottom]; })()")  # fmt: skip
    assert left >= 0
    assert right <= width
    assert bottom <= 780


def test_print_shows_everything(shown: Browser) -> None:
    """On paper buttons and panel are gone, closed parts are open, and every block names its sources in brackets."""
    shown.click(".card .n")
    shown.media("print", scheme="dark")
    visible = "[...document.querySelectorAll('%s')].filter(x => x.checkVisibility()).length"
    assert shown.js(visible % "#panel, nav, #theme, #marks, #download, .hint") == 0
    assert shown.js(visible % ".chart .wide") >= 4
    assert shown.js(visible % ".chart .narrow") == 0
    assert shown.js(visible % ".sources li") > 10
    assert (
        shown.js("""[...document.querySelectorAll("main details *")]
        .filter(x => !x.closest("summary") && !x.checkVisibility()).length""")
        == 0
    )
    cited = shown.js("""[...document.querySelectorAll("main > :not(.summary) :is(p, li, .scroll, dl.card):has(.n)")]
        .filter(x => !/\\[\\d+(, \\d+)*\\]/.test(x.textContent + x.nextElementSibling?.textContent)).length""")
    assert cited == 0
    assert shown.js("getComputedStyle(document.querySelector('.n'), '::after').content") == "none"
    assert shown.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown.media()
    assert shown.js(visible % ".summary, .cites") == 0
    assert shown.pdf().startswith(b"%PDF")


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext of poppler-utils")
@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_a_printed_plan_is_a_summary_of_two_pages_and_an_appendix(
    browser: Browser, tmp_path: Path, paper: str, page: Path
) -> None:
    """On both papers: a summary of at most two pages, notes that are no powers, page numbers, all text inside the
    margins, and what was closed on the screen."""
    sizes = {"A4": (210 / 25.4, 297 / 25.4), "Letter": (8.5, 11.0)}
    browser.media()
    browser.open(page)
    pdf, (wide, high) = tmp_path / "plan.pdf", sizes[paper]
    made = browser.send("Page.printToPDF", paperWidth=wide, paperHeight=high, printBackground=True)["data"]
    pdf.write_bytes(base64.b64decode(made))
    text = subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True).stdout
    pages = text.rstrip("\f\n").split("\f")
    first = next(at for at, one in enumerate(pages) if "Appendix: the whole answer" in one)
    assert first in (1, 2)
    summary = " ".join(" ".join(pages[:first]).split())
    for said in (
        "as good as",
        "Shape",
        "Train",
        "Serve",
        "Quality",
        "Efficiency Leverage of",
        "Near-equal",
        "Notes",
        "[1",
    ):
        assert said in summary
    for at, one in enumerate(pages):
        assert f"{at + 1} / {len(pages)}" in one
    whole = " ".join(text.split())
    assert not re.search(r"\d[\u2070-\u2079\u00b9\u00b2\u00b3]", whole)
    sources = browser.js("document.querySelectorAll('.sources li').length")
    assert f"[{sources}]" in whole
    for law in ("tian2025", "abnar2025"):
        assert str(load_law(law).citation)[:40] in whole.replace("- ", "-") or law in whole
    boxes = subprocess.run(["pdftotext", "-bbox", pdf, "-"], capture_output=True, text=True, check=True).stdout
    found = [
        tuple(map(float, box)) for box in re.findall(r'<word xMin="([\d.]+)" yMin="([\d.]+)" xMax="([\d.]+)"', boxes)
    ]
    assert min(x for x, _, _ in found) >= 16 / 25.4 * 72 - 1
    assert max(x for _, _, x in found) <= (wide - 16 / 25.4) * 72 + 1
    subprocess.run(["pdftoppm", "-r", "40", "-gray", pdf, tmp_path / "page"], check=True)
    drawn = sorted(tmp_path.glob("page-*.pgm"))
    assert len(drawn) == len(pages)
    for picture in drawn:  # charts and lines too stay inside, and no page is empty
        _, size, _, rest = picture.read_bytes().split(b"\n", 3)
        columns = int(size.split()[0])
        rows = [rest[at : at + columns] for at in range(0, len(rest), columns)]
        edge = round(15 / 25.4 * 40)
        assert all(min(row[:edge] + row[-edge:]) > 250 for row in rows)
        assert sum(min(row) < 220 for row in rows) > 8  # more than the page's number


def test_record_can_be_taken_from_the_page(shown: Browser, tmp_path: Path) -> None:
    """The button saves the plan's JSON, which `--from` and other commands read."""
    shown.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True)
    shown.click("#download")
    path = tmp_path / "plan.json"
    shown.wait("new Promise(resolve => setTimeout(() => resolve(true), 200))")
    for _ in range(50):
        if path.exists():
            break
        shown.wait("new Promise(resolve => setTimeout(() => resolve(true), 100))")
    assert read_plan(path) == sample_plan()


def test_lines_of_a_frontier_are_drawn(browser: Browser, tmp_path: Path) -> None:
    """A line is solid inside the law's range and dashed outside, has a band, and its shade and level are there."""
    x = tuple(float(f"1e{power}") for power in range(20, 26))
    chart = Chart(
        "F", "compute", "EL", (Series("a", x, (1.0, 2.0, 3.0, None, 4.0, 5.0), inside=(True,) * 5 + (False,),
        low=(0.9,) * 6, high=(6.0,) * 6, source=Source("By a.", "tian2025")),),
        x_quantity="flops", x_log=True, shades=(blocks.Shade("m", 1e20, 1e22),), levels=(blocks.Level("one", 1.0),),
    )  # fmt: skip
    path = tmp_path / "f.html"
    path.write_text(page_html([Section("S", (chart,))], title="t", data={}), encoding="utf-8")
    browser.media()
    browser.resize(1000)
    browser.open(path)
    lines = browser.js("[...document.querySelectorAll('.wide .line')].map(x => getComputedStyle(x).strokeDasharray)")
    assert [dash != "none" for dash in lines] == [False, True]
    assert browser.js("document.querySelectorAll('.wide .band').length") == 1
    assert browser.js("document.querySelectorAll('.wide .shade, .wide > .level').length") == 2
    assert browser.js("[...document.querySelectorAll('.wide .xtick')].map(x => x.textContent)") == [
        "1e20", "1e21", "1e22", "1e23", "1e24", "1e25",
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------- the command


def test_recommend_writes_page_and_picture(tmp_path: Path) -> None:
    """One command writes plan, page and picture; every number of a real plan has a source, and stdout is the plan's."""
    plan, html, svg = (tmp_path / name for name in ("plan.json", "plan.html", "plan.svg"))
    command = ["recommend", "--flops", "1e20", "--memory", "2x24GB", "--json", "--output", str(plan)]
    done = CliRunner().invoke(cli, [*command, "--html", str(html), "--plot", str(svg)])
    assert done.exit_code == 0, done.output
    found = read_plan(plan)
    assert json.loads(done.stdout) == found.to_json()
    assert numbers_without_source(page_sections(found), found.to_json(), plan_card(found)) == []
    record = re.search(r'id="record">(.*?)</script>', html.read_text(encoding="utf-8"), re.DOTALL)
    assert record
    assert json.loads(record[1]) == found.to_json()
    assert b"<svg" in svg.read_bytes()
    numbers: Any = _Page(html.read_text(encoding="utf-8")).numbers
    for number in numbers:
        value = pointed_at(found.to_json(), number["data-path"]) if "data-path" in number else ""
        if value and not isinstance(value, str):
            assert number["text"].rstrip("*") in set(written(value)), number


def test_a_page_is_titled_by_the_budget_that_was_given() -> None:
    """Days on GPUs where time is the budget, as on the first screen; FLOPs, which differ by design, otherwise."""
    plan = sample_plan()
    timed = dataclasses.replace(plan, request=dataclasses.replace(plan.request, days=14.0, gpus="8xH100 SXM"))
    assert "for 14 days on 8xH100 SXM" in str(page_title(timed))
    by_flops = dataclasses.replace(plan, request=dataclasses.replace(plan.request, days=None))
    assert f"for {format_flops(plan.request.flops)} FLOPs" in str(page_title(by_flops))
