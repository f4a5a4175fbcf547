"""The first screen of `moeplan frontier`."""

from __future__ import annotations

from collections.abc import Sequence

from moeplan.report.blocks import Section, Table
from moeplan.report.frontier import curve_table, limits_text, place_text
from moeplan.report.frontier_charts import leverage_chart, profile_chart
from moeplan.report.screen.commands import asked_again, next_section
from moeplan.report.screen.paper import paper_summary
from moeplan.report.screen.warnings import open_laws, warning_sections
from moeplan.report.text import Text, joined, judges
from moeplan.report.view import View
from moeplan.studies.frontier.curves import Frontier, Point
from moeplan.studies.frontier.ranges import RANGES


def frontier_screen(found: Frontier) -> list[Section]:
    """The curve on one screen: its ends in words, about ten of its points."""
    seen = View(found)
    first, last = seen.points[0], seen.points[-1]
    timed = found.over in ("gpus", "days", "concurrency") or found.request.gpus is not None
    budget = {"memory": "at {request.flops} FLOPs", "flops": "within {request.memory}"}.get(
        found.over,
        "at {request.flops} FLOPs and {request.memory}" if found.request.memory else "at {request.flops} FLOPs",
    )
    if timed:
        budget = f"for {limits_text(seen)}"
    names = {"flops": "Compute", "gpus": "GPUs", "concurrency": "Sequences at a time"}
    name = names.get(found.over, found.over[:1].upper() + found.over[1:])
    title = joined((f"{name} from ", place_text(seen, first), " to ", place_text(seen, last), " ", seen(budget)))
    section = "leverage" if found.over in RANGES else "law"
    return [
        Section(title, (Table(tuple(_rows(seen))),)),
        Section("Along the curve", curve_table(seen, short=True)),
        *_warnings(seen),
        *next_section(
            asked_again(found.provenance.command, "--full"), (f"--section {section} for its chart", "--html page.html")
        ),
    ]


def frontier_summary(found: Frontier, report: Sequence[Section]) -> list[Section]:
    """What a print begins with: the headline, the ends, the leverage along the curve or what each law finds."""
    seen = View(found)
    chart = leverage_chart(seen) if found.over in RANGES else profile_chart(seen)
    return paper_summary(report, frontier_screen(found), chart, report[0].source)


def _rows(seen: View[Frontier]) -> list[tuple[str, str]]:
    first, last = seen.points[0], seen.points[-1]
    rows: list[tuple[str, str]] = [("By", Text(judges(seen.request.laws, seen.request.weights)))]
    if seen.over not in RANGES:
        best = max(seen.points, key=lambda point: point.value_ratio)
        if seen.recommended:
            rows.append(("Recommended", place_text(seen, seen.recommended)))
        return [
            *rows,
            ("Best here", joined((place_text(seen, best), best(", quality (V) {value_ratio} of the budget")))),
        ]
    quality = joined((first("{value_ratio}"), " to ", last("{value_ratio}"), " of the budget"))
    if seen.over in ("gpus", "days", "concurrency"):
        quality = joined((first("{design.value}"), " to ", last("{design.value}"), " FLOPs"))
    rows += [("Quality (V)", quality), ("Leverage", joined((_leverage(first), " to ", _leverage(last))))]
    for name in ("memory", "compute"):
        prices = [getattr(point, f"{name}_price") for point in (first, last)]
        if None not in prices:
            ends = (point(f"{{{name}_price:times}}") for point in (first, last))
            low, high = ends
            said = joined(("a tenth more of it gives ", low, " of V at the first point, ", high, " at the last"))
            rows.append((name.capitalize(), said))
    return rows


def _leverage(point: View[Point]) -> Text:
    ends = point("{pooled_low:2} to {pooled_high:2}")
    return ends if point.pooled_leverage is None else joined((point("{pooled_leverage:2}"), " (", ends, ")"))


def _warnings(seen: View[Frontier]) -> list[Section]:
    points = seen.it.points
    laws = set(seen.it.request.laws)
    open_ones = open_laws(seen.it.notes)
    return warning_sections(
        "frontier",
        seen,
        {
            "left_out": lambda: bool(seen.it.left_out),
            "open_law": lambda: bool(open_ones),
            "all_outside": lambda: all(laws <= set(point.outside) for point in points),
            "on_the_edge": lambda: any(point.edges for point in points),
        },
        open=open_ones,
        left=seen.it.left_out[0] if seen.it.left_out else "",
        axes=", ".join(dict.fromkeys(axis for point in points for axis in point.edges)),
    )
