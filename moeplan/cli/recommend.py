"""`moeplan recommend`: from a budget to a plan."""

from __future__ import annotations

import functools
from typing import Any

import click

from moeplan.cli.display import Display, display_options
from moeplan.cli.options import (
    budget_options,
    demand_options,
    design_option,
    design_options,
    file_option,
    given_options,
    headroom_option,
    law_option,
    option,
    output_option,
    page_options,
    serving_options,
    threads_option,
    training_option,
    training_options,
)
from moeplan.cli.program import Command
from moeplan.texts import counted

target_option = functools.partial(option, heading="Target")


def _candidates_file(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Refuse, before anything is computed, a file that no candidates can be written to."""
    if path is None or ctx.resilient_parsing:
        return path
    from moeplan.plan.candidates import check_suffix

    return check_suffix(path)


@click.command(cls=Command)
@budget_options
@target_option(
    "--target-el",
    type=float,
    metavar="EL",
    help="Find the smallest --flops, --days on --gpus, or --memory, that reaches it by tian2025 alone.",
)
@target_option(
    "--match-dense",
    metavar="MODEL",
    help="Find the smallest that does the work of a dense model: 70B, a config.json or a bundled model.",
)
@target_option("--dense-tokens", metavar="COUNT", help="Its training tokens: 2T. [default: as published]")
@training_options
@law_option
@design_options
@serving_options
@demand_options
@headroom_option
@training_option(
    "--hyperparameters",
    metavar="LAW",
    help="Law whose learning rate and batch are taken. [default: tian2025]",
)
@design_option(
    "--choose",
    type=click.Choice(["best", "lean", "rich", "robust"]),
    help="best: the largest V; lean: the fewest active params within 5 % of it; rich: the most; "
    "robust: the least loss by the law that loses most. [default: best]",
)
@output_option("--alternatives", type=int, help="How many markedly different designs to list. [default: 5]")
@display_options
@file_option(
    "--output",
    help="Write the plan to a JSON file that other commands read; to a .yaml file write the request, for --request.",
)
@file_option(
    "--candidates",
    callback=_candidates_file,
    help="Write every design within a share of the best V to a .csv or .parquet file: its variables, time, memory.",
)
@output_option("--within", type=float, help="That share. [default: 0.05]")
@output_option(
    "--from",
    "source",
    metavar="PLAN",
    help="Repeat the request of a plan file, changed by what else is given, and list what is different.",
)
@page_options
@threads_option
@click.pass_obj
def recommend(
    command: str,
    /,
    target_el: float | None,
    match_dense: str | None,
    dense_tokens: str | None,
    laws: Any,
    choose: str | None,
    alternatives: int | None,
    display: Display,
    output: str | None,
    candidates: str | None,
    within: float | None,
    source: str | None,
    plot: str | None,
    html: str | None,
    threads: int,
    **options: Any,
) -> None:
    """Plan the best Mixture-of-Experts model for a budget.

    Searches every architecture of the declared grid that fits the memory, maximises what the published scaling laws
    agree on, and prints the exact model with its predicted Efficiency Leverage over dense models.

    \b
    Examples:
      moeplan recommend --flops 1e22 --memory 80GB
      moeplan recommend --flops 1e23 --memory 8x80GB --fix granularity=8
      moeplan recommend --flops 1e22 --memory 80GB --output plan.json
      moeplan recommend --from plan.json --memory 160GB
      moeplan recommend --flops 1e22 --memory 80GB --html plan.html
      moeplan recommend --flops 1e23 --memory 80GB --choose lean
      moeplan recommend --target-el 7 --memory 80GB
      moeplan recommend --target-el 6 --flops 1e22
      moeplan recommend --match-dense 70B --dense-tokens 2T
      moeplan recommend --request request.yaml --candidates all.csv
    """
    from moeplan.plan.budget_fields import make_budget
    from moeplan.plan.document import read_plan
    from moeplan.plan.law_selection import law_words, laws_again
    from moeplan.plan.repeat import repeated_target
    from moeplan.report import output as out

    if within is not None and candidates is None:
        raise click.UsageError("--within needs --candidates, the file that designs are written to")
    share = 0.05 if within is None else within
    if candidates is not None:
        from moeplan.plan.candidates import check_within

        check_within(share)
    if source is not None and options.get("request"):
        raise click.UsageError("--from and --request both say what is asked; give one")
    given = named = given_options(options)
    before = read_plan(source) if source is not None else None
    target: dict[str, Any] = {"target_el": target_el, "match_dense": match_dense, "dense_tokens": dense_tokens}
    target = {name: value for name, value in target.items() if value is not None}
    if before is not None:
        target, given = repeated_target(before, target, given)
        laws = laws_again(before.request.laws, before.request.weights, laws)
        choose = choose or (None if target else before.request.choose)
        alternatives = before.request.alternatives if alternatives is None else alternatives
    budget = None if target else make_budget(given)
    if target and choose not in (None, "best"):
        raise click.UsageError(
            f"--choose {choose} is of a given budget; a target is searched for with the best designs"
        )
    from moeplan.plan.planner import planned
    from moeplan.plan.planner import recommend as search

    choice = None
    with out.Progress() as progress:
        settings: dict[str, Any] = {
            "laws": laws or None,
            "alternatives": 5 if alternatives is None else alternatives,
            "threads": threads,
            "command": command,
            "progress": progress,
        }
        if choose not in (None, "best"):
            settings["choose"] = choose
        if budget is None:
            from moeplan.plan.inverse import recommend_for

            plan = recommend_for(**target, **given, **settings)
        elif candidates is None:
            plan = search(budget, **settings)
        else:
            plan, choice = planned(budget, **settings)
    from moeplan.report.screen.plan import plan_screen
    from moeplan.report.sections import plan_sections

    changed, told = [], []
    if before is not None:
        from moeplan.plan.differences import plan_changes
        from moeplan.plan.repeat import kept_notes
        from moeplan.report.differences import change_section
        from moeplan.report.screen.changes import changes_screen

        changes = plan_changes(before, plan)
        changed, told = [change_section(changes, str(source))], changes_screen(changes, str(source))
        for note in kept_notes(before, plan, named):
            click.echo(f"Note: {note}", err=True)
    with out.Delivery() as delivery:
        if output is not None and output.lower().endswith((".yaml", ".yml")):
            from moeplan.cli.requests import request_text

            asked = {**target, **given, "laws": law_words(laws), "choose": choose, "alternatives": alternatives}
            own = click.get_current_context().command
            delivery.write(output, lambda: request_text(own, asked), "Request written")
        else:
            delivery.write(output, plan.to_text, "Plan written")
        if candidates is not None:
            from moeplan.plan.candidates import candidates_of

            near = candidates_of(choice, share) if choice is not None else plan.candidates(share, threads=threads)

            def write() -> None:
                near.write(str(candidates))
                click.echo(f"{counted(len(near), 'design(s)')} written to {candidates}", err=True)

            delivery.attempt(write)
        if plot or html:
            from moeplan.report.plan_page import write_plan

            delivery.attempt(lambda: write_plan(plan, plot=plot, html=html, more=changed))
        display.show(plan, screen=lambda: plan_screen(plan, told), full=lambda: [*plan_sections(plan), *changed])
        if display.as_json:
            out.note_sections(changed)
