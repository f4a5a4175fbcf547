"""Answers as a notebook shows them: `plan.plot()`, `frontier.plot()`, and a plan as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeplan.errors import UsageError
from moeplan.fitting.result import FittedLaw
from moeplan.plan.document import Plan
from moeplan.report.blocks import Chart
from moeplan.report.charts import charts_of
from moeplan.report.charts.svg import file_picture
from moeplan.report.comparison_charts import comparison_charts
from moeplan.report.fitting import fit_sections
from moeplan.report.frontier import frontier_sections
from moeplan.report.html import plan_fragment
from moeplan.report.pictures import png, write_plot
from moeplan.report.plan_page import plan_charts
from moeplan.studies.comparison.result import Comparison
from moeplan.studies.frontier.curves import Frontier


@dataclass(frozen=True)
class Drawing:
    """Charts that a notebook shows, and that can be written to a file."""

    charts: tuple[Chart, ...]
    """What is drawn."""

    def to_svg(self) -> str:
        """The text of an SVG file."""
        return file_picture(self.charts)

    def to_png(self) -> bytes:
        """The bytes of a PNG file; needs the extra `plot`."""
        return png(self.to_svg())

    def save(self, path: str | Path) -> None:
        """Write a .svg or .png file; raises `UsageError` for another, and for a .png without the extra `plot`."""
        write_plot(str(path), self.charts)

    def _repr_svg_(self) -> str:
        return self.to_svg()


def drawing(answer: Any, of: str = "") -> Drawing:
    """The charts of an answer; with `of` those whose title has this word.

    Raises `UsageError` for a word that no title has, naming the titles, and for an answer without charts.
    """
    known = tuple(_charts(answer))
    found = tuple(chart for chart in known if of.lower() in chart.title.lower())
    if not found:
        titles = "; ".join(chart.title for chart in known) or "none"
        raise UsageError(f"there is no chart of {of!r}; there are: {titles}")
    return Drawing(found)


def _charts(answer: Any) -> Sequence[Chart]:
    if isinstance(answer, Plan):
        return plan_charts(answer)
    if isinstance(answer, Comparison):
        return comparison_charts(answer)
    if isinstance(answer, Frontier):
        return charts_of(frontier_sections(answer))
    return charts_of(fit_sections(answer)) if isinstance(answer, FittedLaw) else ()


def fragment(plan: Plan) -> str:
    """A plan as HTML."""
    return plan_fragment(plan)
