"""`moeplan frontier`: recommendations along a range of what is given, or over a design variable."""

from __future__ import annotations

import functools
from typing import Any

import click

from moeplan.cli.display import Display, display_options
from moeplan.cli.options import (
    complete_variable,
    given_options,
    option,
    page_options,
    request_options,
    threads_option,
)
from moeplan.cli.program import Command


class _Ranged(click.ParamType[Any]):
    """A number as another type reads it, or the text of a range."""

    def __init__(self, one: click.ParamType[Any]) -> None:
        self.one, self.name = one, one.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if ".." in str(value) else self.one.convert(value, param, ctx)


@click.command(cls=Command)
@option(
    "--over",
    metavar="NAME",
    heading="Curve",
    shell_complete=functools.partial(complete_variable, after=""),
    help="Draw over a design variable at one budget: active_param_ratio, granularity, tokens, ...; or again over what "
    "is given as a range.",
)
@option("--points", type=int, default=40, heading="Curve", help="Points, log-spaced, ends included. [default: 40]")
@request_options
@display_options
@page_options
@threads_option
@click.pass_obj
def frontier(
    command: str,
    /,
    over: str | None,
    points: int,
    laws: tuple[str, ...],
    display: Display,
    plot: str | None,
    html: str | None,
    threads: int,
    **options: Any,
) -> None:
    """Draw recommendations along memory, along compute, or over a variable.

    Give --memory, --flops, --gpus, --days or --concurrency as a range LOW..HIGH: every point is what moeplan recommend
    answers there. With --over, and one budget, everything else is re-optimised at each value of the variable: over
    active_param_ratio at the recommendation's total_params (or as --fix says), over tokens at equal compute.

    \b
    Examples:
      moeplan frontier --flops 1e22 --memory 24GB..640GB
      moeplan frontier --flops 1e20..1e25 --memory 80GB
      moeplan frontier --flops 1e22 --memory 8x24GB..8x80GB --points 10
      moeplan frontier --gpus 256xH100 --days 7..90 --memory 8x80GB
      moeplan frontier --gpus 8xH100..64xH100 --days 30 --memory 8x80GB --points 4
      moeplan frontier --flops 1e22 --memory 80GB --concurrency 1..64 --points 7
      moeplan frontier --flops 1e22 --memory 80GB --over granularity
      moeplan frontier --flops 1e22 --memory 80GB --over active_param_ratio
      moeplan frontier --flops 1e22 --memory 80GB --over tokens
    """
    from moeplan.report import output as out
    from moeplan.report.frontier import frontier_sections
    from moeplan.report.frontier_words import title
    from moeplan.report.screen.frontier import frontier_screen, frontier_summary
    from moeplan.studies.frontier import frontier as curve

    given = given_options(options)
    with out.Progress() as progress:
        found = curve(
            **given,
            over=over,
            points=points,
            laws=laws or None,
            threads=threads,
            command=command,
            progress=progress,
        )
    sections = frontier_sections(found)
    with out.Delivery() as delivery:
        delivery.pictures(
            plot=plot, html=html, title=title(found), sections=sections, data=found.to_json(), command=command,
            summary=frontier_summary(found, sections), record="frontier.json",
        )  # fmt: skip
        display.show(found, screen=lambda: frontier_screen(found), full=lambda: sections)


for _parameter in frontier.params:
    if _parameter.name in ("days", "concurrency"):
        _parameter.type = _Ranged(_parameter.type)
