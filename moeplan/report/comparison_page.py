"""A comparison's page and pictures: its sections with charts in place, and every model on a card."""

from __future__ import annotations

import dataclasses

from moeplan.report.blocks import Cell, Section, Source, Table
from moeplan.report.comparison import comparison_sections
from moeplan.report.comparison_charts import cost_chart, work_chart
from moeplan.report.pictures import write_pictures
from moeplan.studies.comparison.result import Comparison, Contender
from moeplan.units import format_bytes, format_count, format_flops

_COUNTED = Source("Counted from the exact integer shape, or priced from it.")


def write_comparison(found: Comparison, *, plot: str | None, html: str | None) -> None:
    """Write a comparison's charts, its page, or both."""
    write_pictures(
        plot=plot,
        html=html,
        title=page_title(found),
        sections=page_sections(found),
        data=found.to_json(),
        card=models_card(found),
        record="comparison.json",
    )


def page_title(found: Comparison) -> Cell:
    """What the page is about."""
    if found.regime == "models":
        return Cell(" beside ".join(model.name for model in found.models), Source("Names of the models."))
    asked = Source("What was asked for.", path="/setting/flops" + (" -" if found.setting.memory else ""))
    limit = f" and {found.setting.memory}" if found.setting.memory else ""
    return Cell(f"MoE against dense for {format_flops(found.setting.flops or 0.0)} FLOPs{limit}", asked)


def page_sections(found: Comparison) -> list[Section]:
    """The comparison's report with the charts in the sections they belong to."""
    charts = {"Side by side": cost_chart(found), "Work by each law": work_chart(found)}
    return [
        dataclasses.replace(section, blocks=(section.blocks[0], chart, *section.blocks[1:]))
        if (chart := charts.get(section.title)) and chart.series
        else section
        for section in comparison_sections(found)
    ]


def models_card(found: Comparison) -> Table:
    """Every model as a tile: its params, its tokens and what serving it takes."""
    return Table(tuple(_tile(model, place) for place, model in enumerate(found.models)), source=_COUNTED)


def _tile(model: Contender, place: int) -> tuple[str, str, str]:
    at = f"/models/{place}"
    what = f"on {format_count(model.tokens)} tokens, {format_bytes(model.serving_bytes)} to serve"
    where = f"{at}/tokens {at}/serving_bytes"
    size, path = format_count(model.total_params), f"{at}/total_params"
    if not model.is_dense:
        size, path = f"{size}-A{format_count(model.active_params)}", f"{path} {at}/active_params"
    return (
        model.name,
        Cell(size, dataclasses.replace(_COUNTED, path=path)),
        Cell(what, dataclasses.replace(_COUNTED, path=where)),
    )
