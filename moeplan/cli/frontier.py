"""`moeplan frontier`: recommendations along memory, along compute, or over a design variable."""

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


@click.command(cls=Command)
@option(
    "--over",
    metavar="NAME",
    heading="Curve",
    shell_complete=functools.partial(complete_variable, after=""),
    help="Draw over a design variable at one budget: active_param_ratio, granularity, tokens, ...",
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

    Give --memory or --flops as a range LOW..HIGH: every point is what moeplan recommend answers there. With --over, and
    one budget, everything else is re-optimised at each value of the variable: over active_param_ratio at the
    recommendation's total_params (or as --fix says), over tokens at equal compute.

    \b
    Examples:
      moeplan frontier --flops 1e22 --memory 24GB..640GB
      moeplan frontier --flops 1e20..1e25 --memory 80GB
      moeplan frontier --flops 1e22 --memory 8x24GB..8x80GB --points 10
      moeplan frontier --flops 1e22 --memory 80GB --over granularity
      moeplan frontier --flops 1e22 --memory 80GB --over active_param_ratio
      moeplan frontier --flops 1e22 --memory 80GB --over tokens
    """
    from moeplan.report import output as out
    from moeplan.report.frontier import frontier_sections
    from moeplan.report.frontier_words import title
    from moeplan.report.screen.frontier import frontier_screen
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
            record="frontier.json",
        )  # fmt: skip
        display.show(found, screen=lambda: frontier_screen(found), full=lambda: sections)
