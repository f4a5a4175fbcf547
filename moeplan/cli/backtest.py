"""`moeplan backtest`: the laws against published equivalences of MoE and dense models."""

from __future__ import annotations

import click

from moeplan.cli.options import complete_law, formats, one_format, option, page_options
from moeplan.cli.program import Command


@click.command(cls=Command)
@option(
    "--law",
    "laws",
    metavar="LAW",
    multiple=True,
    heading="Laws",
    shell_complete=complete_law,
    help="Law to test: NAME, NAME/FIT or a YAML file; repeatable. [default: every bundled law of MoE]",
)
@formats
@page_options
def backtest(laws: tuple[str, ...], as_json: bool, as_markdown: bool, plot: str | None, html: str | None) -> None:
    """Test the laws on published comparisons of MoE and dense models.

    Controlled studies (same data, equal or bounded loss) are scored; product claims stand beside them as context.
    Prints claimed, predicted and their ratio, in or out of the law's measured range, and the error by law.

    \b
    Examples:
      moeplan backtest
      moeplan backtest --law tian2025 --json
      moeplan backtest --law my_law.yaml
    """
    from moeplan.records import to_json
    from moeplan.report import output as out
    from moeplan.report.backtest import backtest_sections
    from moeplan.studies.backtest import backtest as test

    one_format(as_json, as_markdown)
    found = test(laws or None)
    sections = backtest_sections(found)
    if plot or html:
        from moeplan.report.pictures import write_pictures

        title = "The laws against published studies"
        write_pictures(
            plot=plot, html=html, title=title, sections=sections, data=to_json(found), record="backtest.json"
        )
    if as_json:
        out.emit_json(to_json(found))
    else:
        out.emit_sections(sections, markdown=as_markdown)
