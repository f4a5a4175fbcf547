"""A comparison as pictures."""

from __future__ import annotations

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.report.blocks import Chart, Level, Series, series
from moeplan.report.comparison_laws import ratio_text
from moeplan.report.comparison_sources import WORK, seen
from moeplan.report.text import Source
from moeplan.studies.comparison.result import Comparison


def comparison_charts(found: Comparison) -> tuple[Chart, ...]:
    """Dense compute by each law, and what each model costs, as pictures."""
    return tuple(chart for chart in (work_chart(found), cost_chart(found)) if chart.series)


def work_chart(found: Comparison, models: int | None = None) -> Chart:
    """One series a law, one place a model: all of them, or the first so many."""
    names = tuple(model.name for model in found.models[:models])
    lines = [
        series(
            column.law,
            column.answers[:models],
            "ratio",
            "ratio.low",
            "ratio.high",
            kind="points",
            inside=tuple(not answer.outside for answer in column.answers[:models]),
            texts=tuple(ratio_text(answer) for answer in column.answers[:models]),
            strong=column.law == LEVERAGE_LAW,
            source=Source(column.basis, column.law, WORK),
        )
        for column in seen(found).laws
        if any(answer.ratio for answer in column.answers)
    ]
    return Chart(
        title="Dense compute by each law",
        x_title="model",
        y_title=f"dense-equivalent compute / compute of {names[0]}",
        series=tuple(lines),
        y_quantity="times",
        y_log=True,
        levels=(Level(f"compute of {names[0]}", 1.0),),
        labels=names,
        note="Each law counts its own FLOPs; two laws are not averaged.",
    )


_COSTS = {
    "total params": "total_params",
    "active params": "active_params",
    "tokens": "tokens",
    "train FLOPs": "train_flops",
    "GPU time": "gpu_hours",
    "training state": "state_bytes",
    "serving memory": "serving_bytes",
}


def cost_chart(found: Comparison) -> Chart:
    """Costs of every model in units of the first one's, one series a model."""
    first = found.models[0]
    known = {name: cost for name, cost in _COSTS.items() if all(getattr(each, cost) for each in found.models)}
    lines = tuple(
        Series(
            name=model.name,
            x=tuple(range(len(known))),
            y=tuple(getattr(model, cost) / getattr(first, cost) for cost in known.values()),
            kind="points",
            source=Source(f"exact counts of {model.name} / of {first.name}; GPU time as predicted of each"),
        )
        for model in found.models[1:]
    )
    return Chart(
        title=f"Costs in units of {first.name}",
        x_title="cost",
        y_title=f"cost / that of {first.name}",
        series=lines,
        y_quantity="times",
        y_log=True,
        levels=(Level(first.name, 1.0),),
        labels=tuple(known),
    )
