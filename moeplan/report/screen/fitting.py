"""The first screen of `moeplan fit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moeplan.fitting.result import FittedLaw
from moeplan.report.blocks import Section, Table
from moeplan.report.fitting import coefficient_blocks, headline, profile_chart, residual_chart, seen
from moeplan.report.screen.commands import asked_again, next_section
from moeplan.report.screen.paper import paper_summary
from moeplan.report.screen.warnings import warning_sections
from moeplan.report.suggestion import suggestion_sections
from moeplan.report.text import Text
from moeplan.report.view import View
from moeplan.texts import sentence

BADLY = 3.0
"""How many times the residual of the fitted runs the error of those held out may be without a warning."""


def fit_screen(fitted: FittedLaw, output: str | None = None) -> list[Section]:
    """How well the form fits, its coefficients, and what to do with the law; `output` is the file that it went to."""
    f = seen(fitted)
    command = asked_again(fitted.command, "--full")
    also = ["--section residuals", "--html page.html"]
    also.append(f"recommend --law {output}" if output else "--output law.yaml")
    suggested = suggestion_sections(f.suggestion) if fitted.suggestion is not None else []
    return [
        Section(headline(f), (Table(tuple(_rows(f))),)),
        *([] if suggested else [Section("Coefficients", coefficient_blocks(f))]),
        *(Section(title, blocks[:2]) for title, blocks in suggested),
        *_warnings(f),
        *next_section(command, also),
    ]


def fit_summary(fitted: FittedLaw, report: Sequence[Section]) -> list[Section]:
    """What a print begins with: the headline, runs and coefficients, the law over sizes or the residuals."""
    chart = profile_chart(fitted) or residual_chart(fitted)
    return paper_summary(report, fit_screen(fitted), chart, report[0].source)


def _rows(f: View[FittedLaw]) -> list[tuple[str, str]]:
    rows = [("Law", f.equation.rstrip(".")), ("Runs", f("{used} of {rows} of {file}", **_runs(f)))]
    if f.runs.least_flops is not None and f.runs.most_flops is not None:
        rows.append(("Compute", f.runs("{least_flops} to {most_flops} FLOPs")))
    if f.hold_out is not None:
        held = "the {held_out:d} largest run(s), from {from_flops} FLOPs on: {rms:share} rms from what the others say"
        rows.append(("Held out", f.hold_out(held)))
    for place, x in enumerate(f.optima):
        far = "" if x.inside else ", beyond the runs"
        if x.active_params is not None and x.tokens is not None:
            size = x(f"{{train_flops}} FLOPs: {{active_params}} active params on {{tokens}} tokens{far}")
            rows.append(("Best size at" if not place else "", size))
        elif x.value is not None and not f.it.profiles:
            rows.append(("" if place else "Predicts", x(f"{{train_flops}} FLOPs: {f.predicts} {{value:number4}}{far}")))
    return rows


def _runs(f: View[FittedLaw]) -> dict[str, Any]:
    return {"used": f.runs.number_at("used"), "rows": f.runs.number_at("rows"), "file": str(f.runs.file)}


def _warnings(f: View[FittedLaw]) -> list[Section]:
    fitted, held = f.it, f.it.hold_out
    open_ones = [c.name for c in fitted.coefficients if not c.identified]
    applies: dict[str, Any] = {
        "not_identified": lambda: bool(open_ones),
        "no_intervals": lambda: all(one.low is None for one in fitted.coefficients),
        "holds_out_badly": lambda: held is not None and held.rms > BADLY * max(held.rms_fitted, 1e-9),
        "one_warning": lambda: bool(fitted.warnings),
        "another_warning": lambda: len(fitted.warnings) > 1,
        "no_hold_out": lambda: held is None,
    }
    names = [coefficient.name for coefficient in fitted.coefficients]
    said, also = ([Text(sentence(warning, names)) for warning in fitted.warnings] + [Text("")] * 2)[:2]
    more = {"said": said, "also": also, "why": fitted.hold_out_says}
    return warning_sections("fit", f, applies, open=", ".join(open_ones), **more)
