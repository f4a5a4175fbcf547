"""The planner's page in Chromium: typed, dragged, clicked, pinned, downloaded, reloaded, by keyboard, small, dark."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.chromium import CHROMIUM, Browser
from tests.planner_server import Server

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
QUERY = "flops=1e22&memory=80GB"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A planner."""
    found = Server()
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, for one page after the other."""
    found = Browser()
    yield found
    found.close()


@pytest.fixture
def page(server: Server, browser: Browser) -> Iterator[Browser]:
    """The planner's page with a plan on it; at the end, that nothing was asked of anyone else and nothing failed."""
    browser.resize(1280)
    browser.media()
    browser.go(f"{server.url}?{QUERY}")
    settled(browser)
    yield browser
    asked = [each["request"]["url"] for each in browser.seen("Network.requestWillBeSent")]
    assert asked
    assert all(url.startswith((server.url, "data:", f"blob:{server.url}")) for url in asked), asked
    assert not browser.seen("Runtime.exceptionThrown", "Audits.issueAdded")
    wrong = [each["entry"] for each in browser.seen("Log.entryAdded") if each["entry"]["level"] == "error"]
    assert all("422" in each["text"] for each in wrong), wrong  # a question that cannot be planned


def settled(browser: Browser, timeout: float = 240.0) -> None:
    """Wait until what the form holds is drawn, its charts too."""
    own = "new URLSearchParams([...new URLSearchParams(location.search)].filter(([n]) => n !== 'pin')).toString()"
    end = time.monotonic() + timeout
    while not browser.js(f"!document.body.matches('.stale') && document.body.dataset.drawn === ({own})"):
        assert time.monotonic() < end, browser.js("document.getElementById('status').textContent")
        time.sleep(0.05)


def text(browser: Browser, selector: str) -> str:
    """What an element says."""
    found: str = browser.js(f"document.querySelector({json.dumps(selector)}).textContent")
    return found


def held(browser: Browser) -> dict[str, list[str]]:
    """What the page's address holds."""
    return parse_qs(urlsplit(browser.js("location.href")).query)


def test_typing_plans(page: Browser, server: Server) -> None:
    """What is typed into a field is planned: headline, tiles and command line are those of the server's answer."""
    page.type("#field-memory", "2x60GB")
    settled(page)
    answer = server.json("/api/answer", "flops=1e22&memory=2x60GB")
    assert text(page, "#title") == answer["title"]
    assert text(page, "#command") == "moeplan recommend --flops 1e22 --memory 2x60GB"
    tiles = page.js("[...document.querySelectorAll('#card dd:not(.note)')].map((x) => x.textContent)")
    assert tiles == [each["value"] for each in answer["card"]]
    assert held(page)["memory"] == ["2x60GB"]


def test_a_mistake_leaves_the_plan(page: Browser) -> None:
    """A value that cannot be says why, and the plan before stays, marked; a good value takes the mark away."""
    before = text(page, "#title")
    page.type("#field-flops", "many")
    page.wait("document.body.matches('.failed')")
    assert "1e22 or 5ZFLOP" in text(page, "#status")
    assert page.js("[...document.querySelectorAll('[aria-invalid]')].map((x) => x.id)") == ["field-flops"]
    assert text(page, "#title") == before
    page.type("#field-flops", "1e22")
    settled(page)
    assert not page.js("document.body.matches('.failed') || document.querySelector('[aria-invalid]')")


def test_dragging_plans(page: Browser) -> None:
    """A slider's knob that is dragged sets the field and the plan, and the knob stands where the field says."""
    before = text(page, "#title")
    page.drag("#slide-memory", 0.75)
    settled(page)
    memory = held(page)["memory"][0]
    assert memory != "80GB"
    assert page.js("document.querySelector('#field-memory').value") == memory
    assert text(page, "#title") != before
    assert memory in text(page, "#command")


def test_a_design_is_clicked(page: Browser) -> None:
    """A click on a point fixes the design that was read under the pointer; freeing a variable takes the fix away."""
    x, y = page.js(
        "(() => { document.querySelector('#designs').scrollIntoView({block: 'center', behavior: 'instant'}); "
        "const b = document.querySelector('#designs .point').getBoundingClientRect(); "
        "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    read = text(page, "#designs-read")
    count = page.js("document.querySelectorAll('#designs .point').length")
    page.click_at(x, y)
    settled(page)
    assert len(held(page)["fix"]) == 8
    assert read.split(",")[0] in text(page, "#title")
    assert page.js("document.querySelectorAll('#designs .point').length") == count
    page.click("#fixed .field.fixed button")
    settled(page)
    assert len(held(page)["fix"]) == 7


def test_memory_is_chosen_on_its_curve(page: Browser) -> None:
    """The curve says the best design at the memory under the pointer, and a click plans there."""
    place = page.js(
        "(() => { const e = document.querySelector('#curve'); "
        "e.scrollIntoView({block: 'center', behavior: 'instant'}); "
        "const b = e.getBoundingClientRect(); return [b.x + b.width * .8, b.y + b.height / 2]; })()"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    read = text(page, "#curve-read")
    page.click_at(*place)
    settled(page)
    assert read.startswith(held(page)["memory"][0])
    assert read.split(": ")[1].split(",")[0].split("-A")[0] in text(page, "#title")


def test_a_variable_is_fixed_by_its_button_and_its_slider(page: Browser) -> None:
    """A variable's button fixes it at the plan's value; its slider moves it."""
    page.click("[aria-label='Fix granularity']")
    settled(page)
    assert held(page)["fix"] == ["granularity=8"]
    page.drag("#slide-granularity", 0.2)
    settled(page)
    value = float(held(page)["fix"][0].partition("=")[2])
    assert value < 8
    assert f"granularity={value:g}" in text(page, "#command").replace("'", "")


def test_laws_are_weighed_and_left_out(page: Browser) -> None:
    """A weight is said by the default set's weights alone; a law that is not ticked leaves by naming the others."""
    page.js("document.querySelector('#laws').open = true")
    page.type("#weight-zhao2025", "0.5")
    settled(page)
    assert held(page)["law"] == ["zhao2025=0.5"]
    page.click("#law-abnar2025")
    settled(page)
    assert sorted(held(page)["law"]) == ["ludziejewski2025", "tian2025", "zhao2025=0.5"]
    assert "--law zhao2025=0.5" in text(page, "#command")


def test_plans_stand_side_by_side_and_links_open_them(page: Browser) -> None:
    """Pinned plans stay beside the one that is shown, two at most, and the link opens all of them again."""
    page.click("#pin")
    page.type("#field-memory", "160GB")
    settled(page)
    page.click("#pin")
    page.type("#field-memory", "320GB")
    settled(page)
    shown = "[...document.querySelectorAll('#pinned tr')].map((x) => x.textContent)"
    table, link = page.js(shown), page.js("location.href")
    assert "80GB" in table[0]
    assert "160GB" in table[0]
    assert "Now" in table[0]
    assert any(line.startswith("total_params") and "×" in line for line in table)
    page.go("about:blank")
    page.go(link)
    settled(page)
    page.wait(f"JSON.stringify({shown}) === {json.dumps(json.dumps(table, ensure_ascii=False, separators=(',', ':')))}")
    assert held(page)["pin"] == ["flops=1e22&memory=80GB", "flops=1e22&memory=160GB"]
    page.click("[aria-label='Remove pinned A']")
    page.click("[aria-label='Plan again as pinned A']")
    settled(page)
    assert held(page)["memory"] == ["160GB"]


def test_files_are_downloaded(page: Browser, server: Server, tmp_path: Path) -> None:
    """The four buttons save the plan file, the configurations and the page of what is shown."""
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    wanted = {"plan": "plan.json", "export/hf": "config.json", "export/megatron": "megatron.args", "page": "plan.html"}
    for path, name in wanted.items():
        page.click(f"[data-download='{path}']")
        end = time.monotonic() + 60
        while not (tmp_path / name).exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert (tmp_path / name).read_text(encoding="utf-8") == server.ask("POST", f"/api/{path}", QUERY)[2], name


def test_keyboard_alone(page: Browser) -> None:
    """From the top of the page, by Tab, arrows and Enter alone: a slider, a chart's point that is fixed, a pin."""

    def tab_to(identifier: str) -> None:
        for _ in range(120):
            page.press("Tab")
            if page.js("document.activeElement.id") == identifier:
                return
        raise AssertionError(f"{identifier} cannot be reached")

    page.js("document.activeElement.blur()")
    tab_to("slide-memory")
    page.press("ArrowRight", 3)
    settled(page)
    assert held(page)["memory"] != ["80GB"]
    tab_to("pin")
    page.press("Enter")
    tab_to("designs")
    page.press("ArrowRight", 2)
    read = text(page, "#designs-read")
    assert "experts" in read
    page.press("Enter")
    settled(page)
    assert len(held(page)["fix"]) == 8
    assert read.split(",")[0] in text(page, "#title")
    assert page.js("!document.querySelector('#pins').hidden")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_and_dark(page: Browser, server: Server, width: int, scheme: str) -> None:
    """On a phone and on a desk, light and dark, nothing is wider than the window and text stands out."""
    page.resize(width)
    page.media(scheme=scheme)
    page.js("document.querySelectorAll('details').forEach((x) => { x.open = true; })")
    assert page.js("document.documentElement.scrollWidth <= innerWidth")
    light = (
        "((color) => { const c = document.createElement('canvas').getContext('2d'); c.fillStyle = color; "
        "c.fillRect(0, 0, 1, 1); const [r, g, b] = c.getImageData(0, 0, 1, 1).data; return .2126 * (r / 255) ** 2.2 + "
        ".7152 * (g / 255) ** 2.2 + .0722 * (b / 255) ** 2.2; })"
    )
    ground = page.js(f"{light}(getComputedStyle(document.body).backgroundColor)")
    assert (ground < 0.1) == (scheme == "dark")
    for selector in ("#title", "#status", "#card dt", "label[for=field-memory]", "#choices td", "#field-memory"):
        ink = page.js(f"{light}(getComputedStyle(document.querySelector({json.dumps(selector)})).color)")
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5, selector
    assert page.js("getComputedStyle(document.querySelector('#bar')).display !== 'none'") == (width == 390)


def test_gpus_and_days_keep_the_answer_before(page: Browser) -> None:
    """While a plan for GPUs and days is searched, the answer before stays and is marked; then the new one is there."""
    before = text(page, "#title")
    page.click("label:has(#mode-days) span")
    assert page.js("document.body.matches('.stale') && !document.querySelector('#plan').hidden")
    assert text(page, "#title") == before
    page.type("#field-gpus", "16xH100")
    page.type("#field-days", "3")
    settled(page)
    assert text(page, "#command") == "moeplan recommend --memory 80GB --gpus 16xH100 --days 3"
    assert page.js("document.querySelector('#curve-figure').hidden")
    page.click("label:has(#mode-flops) span")
    settled(page)
    assert text(page, "#title") == before
