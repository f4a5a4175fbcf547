"""The back-test's judgement of intervals of leverage, as a section: scores by publication left out, and each study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moeplan.quantities import times
from moeplan.report.blocks import Block, Column, Paragraph, Table, table
from moeplan.report.view import View
from moeplan.studies.backtest.intervals import CONSTANT, POOLED
from moeplan.studies.backtest.scores import BackTest, StudyIntervals


def interval_blocks(test: View[BackTest]) -> tuple[Block, ...]:
    """The scores, what they are, and the intervals of every study."""
    if not test.interval_scores:
        return ()
    said = test.it.pool
    assert said is not None
    text = (
        "Interval score in ln EL, with each publication left out: the width, and twenty times what is missed; lower is "
        f"better. {POOLED}: the headline of plans. A law alone: its own interval. {CONSTANT}: a log-normal fitted to "
        "the studies at equal loss, whatever the design. Left out of the pool is also the publication's own law. The "
        "widening of tian2025's own interval was fitted to the studies at equal loss, the ladder aside: no test of it."
    )
    fitted = test.pool(
        "Nothing left out, a law is off by {scatter:.2f} in ln EL, less what lies outside its range; measured is "
        "compute from {measured_low:.2g} to {measured_high:.2g} FLOPs."
    )
    columns: tuple[Column, ...] = (
        ("study", "{study}"),
        (">allows", _allowed),
        *((f">{score.method}", _interval(score.method)) for score in test.interval_scores),
    )
    return (interval_table(test), Paragraph(text), table(test.intervals, columns), Paragraph(fitted))


def interval_table(test: View[BackTest]) -> Table:
    """The scores by publication left out, with coverage and median width."""
    scores, studies = test.interval_scores, len(test.intervals)
    rows: list[tuple[str, ...]] = [
        (name, *(score(f"{{by_publication[{name}]:.2f}}") for score in scores)) for name in scores[0].by_publication
    ]
    rows.append(("mean", *(score("{score:.2f}") for score in scores)))
    rows.append(("holds", *(f"{round(score.coverage * studies)} of {studies}" for score in scores)))
    rows.append(("median width", *(score("{width:.2f}") for score in scores)))
    columns = ("left out", *(score.method for score in scores))
    return Table(tuple(rows), columns, right=tuple(range(1, len(columns))), strong=(len(rows) - 3,))


def _allowed(row: View[StudyIntervals]) -> str:
    low, high = row.claimed_low, row.claimed_high
    if low is None or high is None:
        return row("≤ {claimed_high:times}") if low is None else row("≥ {claimed_low:times}")
    return times(low) if low == high else row("{claimed_low:.2f}–{claimed_high:.2f}")


def _interval(method: str) -> Callable[[Any], str]:
    return lambda row: "{:.2f}–{:.2f}".format(*row.intervals[method])
