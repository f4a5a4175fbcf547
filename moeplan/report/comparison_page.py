"""A comparison's page and pictures: its sections with charts in place, and every model on a card."""

from __future__ import annotations

import dataclasses

from moeplan.report.blocks import Section, Table
from moeplan.report.comparison import comparison_sections
from moeplan.report.comparison_charts import cost_chart, work_chart
from moeplan.report.comparison_sources import COUNTED, seen
from moeplan.report.opinions import SIZE
from moeplan.report.pictures import write_pictures
from moeplan.report.screen.comparison import comparison_screen
from moeplan.report.screen.paper import paper_summary
from moeplan.report.text import Source, Text
from moeplan.studies.comparison.result import Comparison


def write_comparison(found: Comparison, *, plot: str | None, html: str | None) -> None:
    """Write a comparison's charts, its page, or both."""
    write_pictures(
        plot=plot,
        html=html,
        title=page_title(found),
        sections=page_sections(found),
        data=found.to_json(),
        card=models_card(found),
        summary=comparison_summary(found),
        record="comparison.json",
    )


def page_title(found: Comparison) -> Text:
    """What the page is about."""
    if found.regime == "models":
        return Text(" beside ".join(model.name for model in found.models), Source("Names of the models."))
    limit = " and {setting.memory}" if found.setting.memory else ""
    return seen(found)(f"MoE against dense for {{setting.flops}} FLOPs{limit}")


def comparison_summary(found: Comparison) -> list[Section]:
    """What a print begins with: the headline, two models side by side, their dense compute by each law."""
    return paper_summary(comparison_sections(found), comparison_screen(found), work_chart(found, 2), COUNTED)


def page_sections(found: Comparison) -> list[Section]:
    """The comparison's report with the charts in the sections they belong to."""
    charts = {"Side by side": cost_chart(found), "Dense compute by each law": work_chart(found)}
    return [
        dataclasses.replace(section, blocks=(section.blocks[0], chart, *section.blocks[1:]))
        if (chart := charts.get(section.title)) and chart.series
        else section
        for section in comparison_sections(found)
    ]


def models_card(found: Comparison) -> Table:
    """Every model as a tile: its params, its tokens and what serving it takes."""
    serving = "on {tokens} tokens, {serving_bytes} to serve"
    rows = tuple(
        (model.name, model("{total_params}" if model.is_dense else SIZE), model(serving))
        for model in seen(found).models
    )
    return Table(rows, source=COUNTED)
