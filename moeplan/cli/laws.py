"""`moeplan laws`: what is bundled, where it comes from, where it is valid."""

from __future__ import annotations

import click

from moeplan.cli.options import complete_law, formats, one_format, option
from moeplan.cli.program import Command


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=complete_law)
@option(
    "--check",
    is_flag=True,
    help="Recompute the papers' own numbers and where each term keeps its sign; exit code 1 if any differs.",
    heading="Options",
)
@formats
@click.pass_context
def laws(ctx: click.Context, name: str | None, check: bool, as_json: bool, as_markdown: bool) -> None:
    """List the published scaling laws, or show or check one.

    NAME is a law (zhao2025), one of its fits (krajewski2024/moe-e16) or a law file (my/law.yaml).

    \b
    Examples:
      moeplan laws
      moeplan laws zhao2025
      moeplan laws --check
    """
    from dataclasses import asdict

    from moeplan.laws import law_names, load_law
    from moeplan.laws.checks import run_checks
    from moeplan.report import law_records as records
    from moeplan.report import laws as report
    from moeplan.report import output as out

    one_format(as_json, as_markdown)
    chosen = [load_law(item) for item in ([name] if name else law_names())]
    results = {law.full_name: run_checks(law) for law in chosen} if check or name else {}
    if check:
        from moeplan.studies.law_terms import term_results

        terms = [result for law in chosen for result in term_results(law)]
        if as_json:
            out.emit_json(asdict(records.check_record(results, terms)))
        else:
            out.emit_sections(report.check_sections(results, terms), markdown=as_markdown)
        numbers = all(result.passed for found in results.values() for result in found)
        if not (numbers and all(result.passed for result in terms)):
            ctx.exit(1)
    elif name:
        found = results[chosen[0].full_name]
        if as_json:
            out.emit_json(asdict(records.law_record(chosen[0], found)))
        else:
            out.emit_sections(report.law_sections(chosen[0], found), markdown=as_markdown)
    elif as_json:
        out.emit_json(asdict(records.list_record(chosen)))
    else:
        out.emit_sections(report.list_sections(chosen), markdown=as_markdown)
