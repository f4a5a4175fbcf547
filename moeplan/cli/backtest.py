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
@option(
    "--labs",
    "what_labs_chose",
    is_flag=True,
    heading="Laws",
    help="What laboratories chose instead: published models beside what moeplan chooses with their budget.",
)
@formats
@page_options
def backtest(
    laws: tuple[str, ...], what_labs_chose: bool, as_json: bool, as_markdown: bool, plot: str | None, html: str | None
) -> None:
    """Test the laws on published comparisons of MoE and dense models.

    Controlled studies (same data, equal or bounded loss) are scored; product claims stand beside them as context.
    Prints claimed, predicted and their ratio, in or out of the law's measured range, and the error by law.

    \b
    Examples:
      moeplan backtest
      moeplan backtest --law tian2025 --json
      moeplan backtest --law my_law.yaml
      moeplan backtest --labs
    """
    from moeplan.records import to_json
    from moeplan.report import output as out

    one_format(as_json, as_markdown)
    if what_labs_chose:
        if laws:
            raise click.UsageError("--labs shows the laws' own choices with equal weights; leave out --law")
        from moeplan.report.labs import labs_sections, labs_summary
        from moeplan.studies.labs import HOURS, labs

        with out.Progress() as progress:
            chosen = labs(hours=HOURS, progress=progress)
        data, sections, title = to_json(chosen), labs_sections(chosen), "What laboratories chose"
        summary = labs_summary(sections)
    else:
        from moeplan.report.backtest import backtest_sections, backtest_summary
        from moeplan.studies.backtest.run import backtest as test

        found = test(laws or None)
        data, sections, title = to_json(found), backtest_sections(found), "The laws against published studies"
        summary = backtest_summary(found, sections)
    with out.Delivery() as delivery:
        record = "labs.json" if what_labs_chose else "backtest.json"
        delivery.pictures(
            plot=plot, html=html, title=title, sections=sections, data=data, summary=summary, record=record
        )
        if as_json:
            out.emit_json(data)
        else:
            out.emit_sections(sections, markdown=as_markdown)
