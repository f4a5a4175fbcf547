"""`moeplan fit`: a law of one's own from one's own runs."""

from __future__ import annotations

import functools
import shlex
from typing import Any

import click

from moeplan.cli.display import Display, display_options
from moeplan.cli.options import (
    budget_options,
    complete_law,
    design_options,
    file_option,
    given_options,
    headroom_option,
    option,
    output_option,
    page_options,
    serving_options,
    training_options,
)
from moeplan.cli.program import Command

next_option = functools.partial(option, heading="What to run next")


def complete_form(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Names of forms and laws."""
    from click.shell_completion import CompletionItem

    from moeplan.laws.signatures import FORMS

    forms = [CompletionItem(name) for name in ("auto", *FORMS) if name.startswith(incomplete)]
    return [*forms, *complete_law(ctx, param, incomplete)]


@click.command(cls=Command)
@click.argument("runs", nargs=-1, required=True)
@option(
    "--form",
    default="auto",
    metavar="NAME",
    heading="Law",
    shell_complete=complete_form,
    help="Form to fit: its name, a law that has it, or auto for the one that predicts held-out runs best. "
    "[default: auto]",
)
@option("--predicts", metavar="NAME", heading="Law", help="What was measured. [default: what the form predicts]")
@option("--prior", metavar="LAW", heading="Law", shell_complete=complete_law, help="Law of the same form to stay near.")
@option(
    "--prior-width",
    type=float,
    heading="Law",
    help="How near, as a share of a coefficient without a standard error. [default: 0.2]",
)
@option(
    "--delta",
    type=float,
    heading="Law",
    help="Residual [ln] from which the objective is linear; inf is least squares. [default: 0.001]",
)
@option("--holdout", type=float, heading="Law", help="Share of the runs, the largest, to predict first. [default: 0.2]")
@option("--name", metavar="NAME", heading="Law", help="Name of the law. [default: the output's or the runs file's own]")
@option(
    "--map",
    "columns",
    multiple=True,
    metavar="NAME=COLUMN",
    heading="Runs",
    help="Column of a quantity, where its name does not say: total_params=width_sum; repeatable.",
)
@option(
    "--where",
    multiple=True,
    metavar="RULE",
    heading="Runs",
    help="Keep the runs for which it holds: router_type=S-Base,Dense; repeatable.",
)
@option("--exclude", multiple=True, metavar="RULE", heading="Runs", help="Leave runs out: 'loss>3.2'; repeatable.")
@option("--keep-best", is_flag=True, heading="Runs", help="Of a sweep of learning rates or seeds, keep the least loss.")
@option("--drop-highest-loss", type=int, metavar="N", heading="Runs", help="Leave out the N runs of highest loss.")
@option(
    "--convention",
    "conventions",
    multiple=True,
    metavar="NAME=WORD",
    heading="Runs",
    help="How a column counts: total_params=non_embedding; repeatable. [default: as the laws' files have it]",
)
@option(
    "--fixed",
    multiple=True,
    metavar="NAME=VALUE",
    heading="Runs",
    help="What all runs have and no column says: num_experts=64; repeatable.",
)
@option("--cluster", metavar="COLUMN", heading="Intervals", help="Runs with equal cells are drawn as one.")
@option("--draws", type=int, heading="Intervals", help="Bootstrap draws; 0 for none. [default: 1000]")
@option("--level", type=float, heading="Intervals", help="Probability to cover. [default: 0.9]")
@option("--seed", type=int, heading="Intervals", help="Seed of the draws. [default: 0]")
@next_option("--suggest", type=int, metavar="N", help="Suggest N runs that should make recommend's answer surer.")
@next_option(
    "--max-flops",
    metavar="FLOPS",
    help="Most compute of one suggested run: 1e20. [default: a tenth of the target's with --days, else a hundredth]",
)
@next_option("--gpus", metavar="NxDEVICE", help="GPUs that the runs are made on, each of which must fit: 8xA100-80GB.")
@next_option("--days", type=float, help="Days on these GPUs for all suggested runs together, pauses included.")
@next_option("--max-params", metavar="N", help="Most params of a suggested run, embeddings included: 1e9.")
@next_option("--max-memory", metavar="SIZE", help="Most memory that training a suggested run takes on one GPU: 24GB.")
@next_option(
    "--for",
    "target",
    metavar="OPTIONS",
    help="Whom to suggest for, in recommend's own words: '--flops 1e23 --memory 80GB'.",
)
@next_option(
    "--runs",
    "suggested",
    metavar="FILE",
    writes=True,
    help="Write the suggested runs to a file for moeplan verify.",
)
@output_option("--at", multiple=True, metavar="FLOPS", help="Further budget to show the law's optimum at; repeatable.")
@file_option("--output", help="Write the law to a YAML file that other commands read.")
@display_options
@page_options
@click.pass_obj
def fit(
    command: str,
    /,
    runs: tuple[str, ...],
    form: str,
    columns: tuple[str, ...],
    conventions: tuple[str, ...],
    fixed: tuple[str, ...],
    at: tuple[str, ...],
    name: str | None,
    output: str | None,
    suggest: int | None,
    max_flops: str | None,
    gpus: str | None,
    days: float | None,
    max_params: str | None,
    max_memory: str | None,
    target: str | None,
    suggested: str | None,
    display: Display,
    plot: str | None,
    html: str | None,
    **options: Any,
) -> None:
    """Fit a law to your own runs, with honest intervals.

    RUNS are CSV files with a header, JSON lines or Parquet, also as W&B and MLflow export them: one run a row, columns
    under the glossary's names (loss, total_params, active_params, tokens, train_flops, expansion_ratio, granularity,
    ...) or their usual aliases, with units as in "params (M)".

    \b
    Examples:
      moeplan fit runs.csv --form ludziejewski2025 --output law.yaml
      moeplan fit runs.csv --form additive_power_law --drop-highest-loss 5
      moeplan fit runs.csv --exclude 'loss>3.2' --prior ludziejewski2025 --form expansion_joint
      moeplan recommend --flops 1e22 --memory 80GB --law law.yaml
      moeplan fit runs.csv --form ludziejewski2025 --suggest 6 --gpus 8xH100 --days 2 --for "--flops 1e23 --memory 80GB"
    """
    from moeplan.files import is_stream
    from moeplan.fitting import fit as estimate
    from moeplan.fitting import law_text
    from moeplan.fitting.arguments import pairs, stem, values
    from moeplan.report import output as out
    from moeplan.report.fitting import fit_sections
    from moeplan.report.screen.fitting import fit_screen, fit_summary
    from moeplan.units import parse_flops

    given = {key: value for key, value in options.items() if value not in (None, ())}
    machine = {"--gpus": gpus, "--days": days, "--max-params": max_params, "--max-memory": max_memory}
    wanted = _wanted(suggest, {"--max-flops": max_flops, **machine}, target, suggested)
    if wanted is not None:
        from moeplan.fitting.suggest import check_form

        check_form(form, options["predicts"] or "", options["draws"])
    kept = None if output is None or is_stream(output) else output
    if kept is not None:
        name = name or stem(kept)
    with out.Progress() as progress:
        fitted = estimate(
            runs,
            form,
            name=name or "",
            columns=pairs(columns, "--map", "total_params=N"),
            conventions=pairs(conventions, "--convention", "total_params=non_embedding"),
            fixed=values(fixed, "--fixed", "num_experts=64"),
            at=tuple(parse_flops(text, "budget") for text in at),
            command=command,
            progress=progress,
            **given,
        )
        if wanted is not None:
            from moeplan.fitting.suggest import with_suggestion

            fitted = with_suggestion(fitted, *wanted, command=command, progress=progress)
    sections = fit_sections(fitted)
    with out.Delivery() as delivery:
        delivery.write(output, lambda: law_text(fitted), "Law written")
        if fitted.suggestion is not None:
            delivery.write(suggested, fitted.suggestion.to_text, "Suggested runs written")
        delivery.pictures(
            plot=plot, html=html, title=f"{fitted.form} fitted to {fitted.runs.file}", sections=sections,
            data=fitted.to_json(), command=command,
            summary=fit_summary(fitted, sections), record="fit.json",
        )  # fmt: skip
        display.show(fitted, screen=lambda: fit_screen(fitted, kept), full=lambda: sections)


@click.command("--for", cls=Command, add_help_option=False)
@budget_options
@training_options
@design_options
@serving_options
@headroom_option
def target_options(**options: Any) -> None:
    """Take the options of `moeplan recommend` for `--for`."""


def _wanted(suggest: int | None, limits: dict[str, Any], target: str | None, suggested: str | None) -> Any:
    """Budget, count and limits of the runs to suggest; None if none are asked for."""
    given = {"--suggest": suggest, "--for": target, "--runs": suggested, **limits}
    present = [flag for flag, value in given.items() if value is not None]
    if not present:
        return None
    if suggest is None:
        raise click.UsageError(f"{present[0]} needs --suggest; add --suggest 6")
    if all(value is None for value in limits.values()):
        raise click.UsageError(
            f"{present[0]} needs --max-flops; add --max-flops 1e20, or what there is: --gpus 8xA100-80GB --days 2, "
            "--max-params 1e9 or --max-memory 24GB"
        )
    if target is None:
        raise click.UsageError(f"{present[0]} needs --for; add --for '--flops 1e23 --memory 80GB'")
    from moeplan.fitting.limits import make_limits
    from moeplan.fitting.suggest import check_count
    from moeplan.units import parse_bytes, parse_count, parse_flops

    check_count(suggest)
    budget = read_target(target)
    readers = {"max_flops": parse_flops, "max_params": parse_count, "max_memory": parse_bytes}
    read: dict[str, Any] = {}
    for flag, value in limits.items():
        name = flag.removeprefix("--").replace("-", "_")
        if value is not None:
            read[name] = readers[name](value, name) if name in readers else value
    return budget, suggest, make_limits(budget, **read)


def read_target(text: str) -> Any:
    """The `Budget` that a quoted piece of recommend's command line asks for; raises `UsageError` for anything else."""
    from moeplan.plan.budget_fields import make_budget

    try:
        parsed = target_options.make_context("--for", shlex.split(text))
    except (click.UsageError, ValueError) as error:
        said = error.format_message().rstrip(".") if isinstance(error, click.UsageError) else str(error).lower()
        raise click.UsageError(f"--for {text!r}: {said[0].lower()}{said[1:]}") from None
    return make_budget(given_options(parsed.params))
