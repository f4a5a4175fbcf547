"""A comparison as pictures."""

from __future__ import annotations

from collections.abc import Callable

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.report.blocks import Chart, Level, Series, Source
from moeplan.report.comparison_laws import WORK, ratio_text
from moeplan.studies.comparison.result import Comparison, Contender


def comparison_charts(found: Comparison) -> tuple[Chart, ...]:
    """Work by each law, and what each model costs, as pictures."""
    return tuple(chart for chart in (work_chart(found), cost_chart(found)) if chart.series)


def work_chart(found: Comparison) -> Chart:
    """One series a law, one place a model."""
    names = tuple(model.name for model in found.models)
    series = [
        Series(
            name=column.law,
            x=tuple(float(place) for place in range(len(names))),
            y=tuple(answer.ratio for answer in column.answers),
            kind="points",
            inside=tuple(not answer.outside for answer in column.answers),
            low=tuple(answer.ratio_low for answer in column.answers),
            high=tuple(answer.ratio_high for answer in column.answers),
            texts=tuple(ratio_text(answer) for answer in column.answers),
            strong=column.law == LEVERAGE_LAW,
            source=Source(column.basis, column.law, WORK),
        )
        for column in found.laws
        if any(answer.ratio for answer in column.answers)
    ]
    return Chart(
        title="Work by each law",
        x_title="model",
        y_title=f"dense-equivalent compute / compute of {names[0]}",
        series=tuple(series),
        y_quantity="times",
        y_log=True,
        levels=(Level(f"compute of {names[0]}", 1.0),),
        labels=names,
        note="Each law counts its own FLOPs; two laws are not averaged.",
    )


def cost_chart(found: Comparison) -> Chart:
    """Costs of every model in units of the first one's, one series a model."""
    costs: tuple[tuple[str, Callable[[Contender], float]], ...] = (
        ("total params", lambda model: model.total_params),
        ("active params", lambda model: model.active_params),
        ("tokens", lambda model: model.tokens),
        ("train FLOPs", lambda model: model.train_flops),
        ("GPU time", lambda model: model.gpu_hours),
        ("training state", lambda model: model.state_bytes),
        ("serving memory", lambda model: model.serving_bytes),
    )
    first = found.models[0]
    series = tuple(
        Series(
            name=model.name,
            x=tuple(float(place) for place in range(len(costs))),
            y=tuple(cost(model) / cost(first) for _, cost in costs),
            kind="points",
            source=Source(f"exact counts of {model.name} / of {first.name}; GPU time at the presets"),
        )
        for model in found.models[1:]
    )
    return Chart(
        title=f"Costs in units of {first.name}",
        x_title="cost",
        y_title=f"cost / that of {first.name}",
        series=series,
        y_quantity="times",
        y_log=True,
        levels=(Level(first.name, 1.0),),
        labels=tuple(name for name, _ in costs),
    )
