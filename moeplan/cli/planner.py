"""`moeplan planner`: the questions of `moeplan recommend` as a page in the browser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from moeplan.cli.options import given_options, option
from moeplan.cli.program import Command, Option
from moeplan.cli.recommend import recommend

HEADINGS = ("Budget", "Training", "Laws", "Design", "Serving")
"""Of the options of `moeplan recommend` that are fields of the form."""
_LOCAL = ("127.0.0.1", "localhost", "::1")
_DEFAULT = re.compile(r"\s*\[default: (.*)\]\s*$")


def form_fields() -> dict[str, Any]:
    """The options of `moeplan recommend` as fields."""
    from moeplan.planner.fields import Field

    found = {}
    for each in recommend.params:
        if not isinstance(each, Option) or each.heading not in HEADINGS or each.metavar == "FILE":
            continue
        flags = (each.opts[0], *each.secondary_opts)
        default = _DEFAULT.search(each.help or "")
        name = flags[0].removeprefix("--")
        choices = each.type.choices if isinstance(each.type, click.Choice) else ()
        found[name] = Field(
            name=name,
            flags=flags,
            heading=each.heading,
            help=_DEFAULT.sub("", each.help or ""),
            default=default[1] if default else "",
            example=each.metavar or "",
            choices=tuple(flag.removeprefix("--") for flag in flags) if len(flags) > 1 else tuple(map(str, choices)),
            several=each.multiple,
        )
    return found


def read_arguments(arguments: Sequence[str]) -> tuple[Any, tuple[str, ...], str]:
    """Budget, laws and rule of arguments of `moeplan recommend`, as the command reads them; raises `UsageError`."""
    from moeplan.errors import UsageError
    from moeplan.plan.budget_fields import make_budget

    try:
        # click keeps the first help option that it makes: that of the whole program
        context = recommend.make_context("recommend", list(arguments), help_option_names=["-h", "--help"])
        options = {
            each.name: context.params[each.name]
            for each in recommend.params
            if isinstance(each, Option) and each.heading in HEADINGS and each.name is not None
        }
        laws, choose = options.pop("laws"), options.pop("choose")
        return make_budget(given_options(options)), tuple(laws), choose or "best"
    except click.UsageError as error:
        raise UsageError(error.format_message().replace("\n\t", " ").rstrip(".")) from None


@click.command(cls=Command)
@option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    heading="Server",
    help="Port; 0 takes a free one. [default: 8765]",
)
@option(
    "--host",
    default="127.0.0.1",
    heading="Server",
    help="Address to listen at. [default: 127.0.0.1, this machine alone]",
)
@option("--open", "open_browser", is_flag=True, heading="Server", help="Open the page in the browser.")
@option(
    "--workers",
    type=click.IntRange(1, 16),
    default=2,
    heading="Server",
    help="Searches at a time, of up to 0.9GB each. [default: 2]",
)
def planner(port: int, host: str, open_browser: bool, workers: int) -> None:
    """Plan in the browser, with the answer beside the question.

    Serves a page on this machine: budget, memory, serving, laws and fixed variables as sliders and fields, and the
    plan, drawn again as they change. Needs moeplan[planner].

    \b
    Examples:
      moeplan planner
      moeplan planner --port 8080 --open
    """
    from moeplan.planner.serve import check_installed, serve

    check_installed()
    if host not in _LOCAL:
        click.echo(
            f"Warning: whoever reaches this machine at {host} can start searches on it; there is no password",
            err=True,
        )
    serve(
        form_fields(),
        read_arguments,
        host=host,
        port=port,
        workers=workers,
        open_browser=open_browser,
        say=lambda text: click.echo(text, err=True),
    )
