"""Text from files reaches a terminal, a page or a chart as text; answers outlive full disks and early interrupts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from moeplan.cli import cli
from moeplan.report.blocks import Chart, Items, Level, Paragraph, Section, Series, Shade, Table
from moeplan.report.charts.svg import file_picture, picture
from moeplan.report.markdown import markdown_text
from moeplan.report.terminal import terminal_text
from moeplan.texts import is_control

LAWS = Path(__file__).parents[1] / "laws"
EVIL = "evil \x1b]0;PWNED\x07\x1b[2J\x1b[31mred \u202egnp \x9b1m"
texts = st.text(st.sampled_from("ab \x1b\x07\x9b\u202e\u2028\x00\x7f\r<>&*|\ud800"), min_size=1, max_size=12)


def evil_law(folder: Path) -> Path:
    """A law whose title moves the cursor, as YAML can write it."""
    text = (LAWS / "zhao2025.yaml").read_text(encoding="utf-8").replace("name: zhao2025", "name: evil")
    title = json.dumps(EVIL)  # JSON's escapes are YAML's
    path = folder / "evil.yaml"
    path.write_text(re.sub(r"(?m)^title: .*$", lambda _: f"title: {title}", text), encoding="utf-8")
    return path


def unseen(text: str) -> set[str]:
    """Control characters of an output, but for the ends of its lines."""
    return {character for character in text if is_control(character)} - {"\n"}


@pytest.mark.parametrize("how", [[], ["--json"], ["--markdown"], ["--check"]])
def test_no_title_of_a_file_reaches_the_terminal(how: list[str], tmp_path: Path) -> None:
    """A law's control codes are shown as escapes in every format; in JSON they mean the same."""
    done = CliRunner().invoke(cli, ["laws", str(evil_law(tmp_path)), *how], prog_name="moeplan")
    assert (done.exit_code, unseen(done.output)) == (0, set())
    if how == ["--json"]:
        assert json.loads(done.stdout)["title"] == EVIL
    elif not how:
        assert r"\x1b]0;PWNED\x07\x1b[2J" in done.stdout.replace("\n", "")


@pytest.mark.parametrize("args", [["inspect", "{}"], ["export", "{}", "--to", "hf"], ["fit", "{}"], ["laws", "{}"],
                                  ["recommend", "--law", "{}", "--flops", "1e20"], ["verify", "{}"]])  # fmt: skip
def test_no_file_name_reaches_the_terminal(args: list[str], tmp_path: Path) -> None:
    """An error that names a file with control codes in its name shows their escapes."""
    name = str(tmp_path / "a\x1b[2J\u202eb\x07.yaml")
    done = CliRunner().invoke(cli, [arg.format(name) for arg in args], prog_name="moeplan")
    assert (done.exit_code, unseen(done.output), done.output.count("\n")) == (2, set(), 1)


@given(texts)
def test_reports_hold_no_control_codes(text: str) -> None:
    """Whatever stands in a title, a table, a list or a chart, a terminal and Markdown show text alone."""
    chart = Chart(text, text, text, (Series(text, (1.0, 2.0), (1.0, 2.0)),), note=text)
    blocks = (Paragraph(text), Items((text, text)), Table(((text, text),), (text, text)), chart)
    sections = [Section(text, blocks)]
    assert unseen(terminal_text(sections)) == set()
    assert unseen(markdown_text(sections)) == set()


@given(st.sampled_from(["name", "title", "axis", "shade", "level", "label", "words"]))
def test_no_text_is_markup_in_a_chart(place: str) -> None:
    """A file's name with a link in it is shown as it is written, in names, labels and titles."""
    link = '<a href="https://evil.example">law</a>'
    text = {place: link}
    chart = Chart(
        text.get("title", "t"), text.get("axis", "x"), text.get("axis", "y"),
        (Series(text.get("name", "s"), (0.0, 1.0), (1.0, 2.0), texts=(text.get("words", "w"),) * 2),),
        shades=(Shade(text.get("shade", "s"), 0.0, 1.0),), levels=(Level(text.get("level", "l"), 1.0),),
        labels=(link, "b") if place == "label" else (),
    )  # fmt: skip
    for drawn in (picture(chart), file_picture([chart])):
        assert "<a" not in drawn
        assert "&lt;a" in drawn


def test_names_that_are_no_utf8_are_refused_before_anything_is_computed() -> None:
    """Bytes that are no UTF-8 end with one sentence, for every command and option alike."""
    name = os.fsdecode(b"caf\xe9.yaml")
    for args in (["recommend", "--flops", "1e22", "--output", name], ["fit", name], ["laws", name], ["inspect", name]):
        done = CliRunner().invoke(cli, args, prog_name="moeplan")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "is not UTF-8" in done.stderr


def test_a_full_disk_does_not_cost_the_answer(tmp_path: Path) -> None:
    """What was computed is printed although its file could not be written; the exit code says that it was not."""
    plan = tmp_path / "runs.csv"
    rows = [(n, n * t, 1.7 + 495.7 * n**-0.35 + 388 * (n * t) ** -0.28) for n in (5e7, 1e8, 4e8) for t in (10, 40)]
    plan.write_text("N,D,loss\n" + "".join(f"{n},{d},{x}\n" for n, d, x in rows))
    args = ["fit", str(plan), "--form", "additive_power_law", "--draws", "0", "--json"]
    full = tmp_path / "law.yaml"
    full.symlink_to("/dev/full")
    done = CliRunner().invoke(cli, [*args, "--output", str(full)], prog_name="moeplan")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["form"] == "additive_power_law"
    assert "no space left on device" in done.stderr
    assert "written to" not in done.stderr


@pytest.mark.parametrize("module", ["click", "moeplan.cli", "moeplan.texts", "moeplan.laws", "yaml", "numpy"])
def test_an_early_interrupt_is_a_sentence(module: str) -> None:
    """Ctrl-C while modules are loaded, whichever of them it meets, shows no traceback."""
    code = f"""
import sys, time

class Slow:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            print(flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow())
sys.argv = ["moeplan", "laws"]
from moeplan.__main__ import main
main()
"""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"  # the module is being loaded
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert b"Traceback" not in said
    assert (process.returncode, said) == (130, b"Error: interrupted\n")
