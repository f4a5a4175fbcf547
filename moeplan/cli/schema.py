"""`moeplan schema`: the JSON Schema of what commands print with --json."""

from __future__ import annotations

import click

from moeplan.cli.program import Command


@click.command(cls=Command)
@click.argument("name", default="plan")
def schema(name: str) -> None:
    """Print the JSON Schema of a command's --json.

    NAME is a kind of JSON: plan (the default), comparison, frontier, inspection, weights, upcycling, models, fit,
    suggestion, laws, law, checks, hardware, backtest, labs, verification, verification_outline or proxy_runs.

    \b
    Examples:
      moeplan schema
      moeplan schema frontier
    """
    from moeplan.report.output import emit_json
    from moeplan.report.schemas import DOCUMENTS, document_schema

    if name not in DOCUMENTS:
        raise click.UsageError(f"no JSON is called {name!r}; known are {', '.join(DOCUMENTS)}")
    emit_json(document_schema(name))
