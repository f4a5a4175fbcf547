"""The first screens of `moeplan verify`: what a study found, and what it will run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from moeplan.report.blocks import Section, Table
from moeplan.report.screen.commands import asked_again, next_section
from moeplan.report.screen.paper import paper_summary
from moeplan.report.screen.warnings import warning_sections
from moeplan.report.text import Text, joined
from moeplan.report.verification import (
    MEASURED,
    interval_text,
    leverage_chart,
    planned_text,
    seen,
    setting_text,
    value_text,
)
from moeplan.report.view import View
from moeplan.verification.summary import ARM
from moeplan.verification.verification import Outline, Verification


def verification_screen(found: Verification) -> list[Section]:
    """The measured leverage beside the predicted one, what the runs were, and what would resolve it."""
    v = seen(found)
    last = v.leverages[-1]
    measured = joined(
        (value_text(last.measured), " (", last.measured("{level:2}"), " interval ", interval_text(last.measured), ")")
    )
    rows = [
        ("Measured", joined((measured, last.measured(" at {train_flops} FLOPs")))),
        ("Predicted", joined((planned_text(v), v(" at {plan_flops} FLOPs, by the plan")))),
        (last.law, last("{law_here} at the compute of these runs")),
        ("Routing", last("largest load {load} of the mean, {dead_experts:2} dead experts, entropy {entropy}")),
        (
            "Runs",
            joined((v.count_at("runs"), " runs, ", _diverged(found), v(" of {outline.train_flops} FLOPs in all"))),
        ),
        ("Tells from 1", v.power("a leverage of {detectable} or more, or its inverse")),
        *((control.control.replace("_", " "), control("{value} ({low}–{high}): {verdict}")) for control in v.controls),
    ]
    title = f"{found.verdict[:1].upper()}{found.verdict[1:]}: {found.reason}"
    return [
        Section(title, (Table(tuple(rows)),)),
        *_warnings(v),
        *next_section(asked_again(found.command, "--full"), ("--section runs", "--html page.html")),
    ]


def verification_summary(found: Verification, report: Sequence[Section]) -> list[Section]:
    """What a print begins with: the answer, what was measured beside what was predicted, the chart of both."""
    return paper_summary(report, verification_screen(found), leverage_chart(seen(found)), MEASURED)


def _diverged(found: Verification) -> str:
    diverged = any(run.status == "diverged" and run.purpose == "measure" for run in found.runs)
    return "some of which diverged," if diverged else "none diverged,"


def _warnings(v: View[Verification]) -> list[Section]:
    found = v.it
    applies: dict[str, Any] = {
        "unhealthy": lambda: found.verdict == "router unhealthy",
        "underpowered": lambda: found.verdict == "underpowered",
        "control_failed": lambda: any(control.verdict == "not as expected" for control in found.controls),
        "outside": lambda: found.outside_domain,
        "rate_at_edge": lambda: any(tuning.at_edge for tuning in found.tuning),
    }
    return warning_sections("verification", v, applies, advice=found.power.says)


def outline_screen(outline: Outline, command: str = "") -> list[Section]:
    """What will be run: how much of it, for which arms, at what cost."""
    o = View(outline)
    budgets = joined([x for place in range(len(outline.moe_budgets)) for x in (", " * bool(place), _budget(o, place))])
    rows = [("Measured at", joined((budgets, " FLOPs"))), ("Runs", setting_text(o))]
    time = "an unknown time" if outline.seconds is None else "about {seconds}"
    title = o(f"{{train_flops}} FLOPs in {time} on this machine ({outline.device}, {{workers:d}} at a time)")
    return [
        Section(title, (Table(tuple(rows)), Table(tuple(_arms(o)), _COLUMNS, right=(1, 2, 3, 4)))),
        *next_section(asked_again(command, "--full"), ("without --dry-run to train them",)),
    ]


def _budget(o: View[Outline], place: int) -> Text:
    return o(f"{{moe_budgets[{place}]:flops}}")


_COLUMNS = ("", "params", "tokens of one", "FLOPs of one", "time of one")


def _arms(o: View[Outline]) -> Iterator[tuple[str, ...]]:
    """A line for each purpose: how many runs, from the smallest to the largest."""
    groups: dict[str, list[View[Any]]] = {}
    for run in o.runs:
        name = run.control.replace("_", " ") or f"{ARM[run.arm]}{', tuning' if run.purpose == 'tune' else ''}"
        groups.setdefault(name, []).append(run)
    for name, runs in groups.items():
        cells = [
            pick(runs, key=lambda run: getattr(run, field) or 0.0)(f"{{{field}}}")
            for field in _FIELDS
            for pick in (min, max)
        ]
        pairs = [a if a == b else joined((a, "–", b)) for a, b in zip(cells[::2], cells[1::2], strict=True)]
        yield (name, *pairs)


_FIELDS = ("total_params", "tokens", "train_flops", "seconds")
