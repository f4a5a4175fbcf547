"""`moeplan recommend`: from a budget to a plan."""

from __future__ import annotations

from typing import Any

import click

from moeplan.commands.options import (
    budget_option,
    complete_law,
    design_option,
    formats,
    one_format,
    option,
    output_option,
    serving_option,
    serving_options,
    threads_option,
    training_option,
)
from moeplan.commands.program import Command


def complete_variable(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Names of design variables."""
    from click.shell_completion import CompletionItem

    from moeplan.design import DESIGN_VARIABLES

    return [
        CompletionItem(f"{name}=", help=variable.meaning)
        for name, variable in DESIGN_VARIABLES.items()
        if f"{name}=".startswith(incomplete)
    ]


@click.command(cls=Command)
@budget_option("--flops", metavar="FLOPS", help="Training compute: 1e22, 10e21, 5ZFLOP.")
@budget_option("--memory", metavar="SIZE", help="Memory the served model must fit: 80GB, 80GiB, 8x80GB.")
@budget_option("--tokens-available", metavar="COUNT", help="Unique training tokens there are: 2T. [default: no limit]")
@budget_option("--max-epochs", type=float, help="How often they may be repeated. [default: 4]")
@budget_option("--max-tokens", metavar="COUNT", help="Most training tokens, repeats included. [default: 100T]")
@budget_option("--inference-tokens", metavar="COUNT", help="Tokens served over the lifetime, paid out of --flops.")
@training_option("--gpus", metavar="GPUS", help="Devices to train on: 256xH100, or 64xmy/device.yaml.")
@training_option("--days", type=float, help="Days of training on them, in place of --flops.")
@training_option("--mfu", type=float, help="Share of the dense bf16 peak reached. [default: a preset by the model]")
@training_option("--price-per-gpu-hour", type=float, help="Price of a device-hour, in any currency.")
@training_option(
    "--memory-for",
    type=click.Choice(["inference", "training", "both"]),
    multiple=True,
    help="What must fit: the served model into --memory, training into the GPUs. [default: inference]",
)
@training_option(
    "--optimizer",
    metavar="NAME",
    help="Optimizer scheme: megatron, zero1, zero3, fsdp2, adam8bit, muon, ... [default: megatron]",
)
@option(
    "--law",
    "laws",
    multiple=True,
    metavar="LAW",
    heading="Laws",
    shell_complete=complete_law,
    help="Law to maximise: NAME, NAME/FIT or a YAML file; repeatable. Replaces the default set "
    "[default: tian2025, zhao2025, ludziejewski2025, abnar2025].",
)
@design_option(
    "--fix",
    multiple=True,
    metavar="NAME=VALUE",
    shell_complete=complete_variable,
    help="Fix a design variable: granularity=8, total_params=36B; repeatable.",
)
@design_option(
    "--range",
    "ranges",
    multiple=True,
    metavar="NAME=LO..HI",
    shell_complete=complete_variable,
    help="Bound a design variable: tokens=1T..2T; repeatable.",
)
@design_option("--vocab-size", type=int, help="Rows of the embedding. [default: 131072; fewer below 1e21 FLOPs]")
@design_option("--seq-len", type=int, help="Training sequence length. [default: 4096]")
@design_option(
    "--tied/--untied",
    "tied_embeddings",
    default=None,
    help="Whether the output head is the embedding. [default: tied below 1e21 FLOPs]",
)
@design_option("--attention", type=click.Choice(["gqa", "mla"]), help="Attention kind. [default: gqa]")
@serving_options
@serving_option("--headroom", type=float, help="Share of the memory that stays free. [default: 0.1]")
@output_option("--alternatives", type=int, help="How many markedly different designs to list. [default: 5]")
@formats
@output_option("--output", metavar="FILE", help="Write the plan to a JSON file that other commands read.")
@output_option(
    "--from",
    "source",
    metavar="PLAN",
    help="Repeat the request of a plan file, changed by what else is given, and list what is different.",
)
@threads_option
@click.pass_obj
def recommend(
    command: str,
    /,
    laws: tuple[str, ...],
    alternatives: int | None,
    as_json: bool,
    as_markdown: bool,
    output: str | None,
    source: str | None,
    threads: int,
    **conditions: Any,
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
    """
    from moeplan.conditions import make_budget, override, parse_fix, parse_ranges, request_conditions
    from moeplan.files import atomic_write, check_writable
    from moeplan.plan import read_plan
    from moeplan.report import output as out

    one_format(as_json, as_markdown)
    given = {name: value for name, value in conditions.items() if value not in (None, ())}
    for condition in ("mfu", "days"):
        if given.get(condition) == 0:
            raise click.UsageError(f"--{condition} 0 must be above 0")
    if "both" in given.get("memory_for", ()):
        given["memory_for"] = ("inference", "training")
    given |= {"fix": parse_fix(conditions["fix"]), "ranges": parse_ranges(conditions["ranges"])}
    before = read_plan(source) if source else None
    if before is not None:
        given = override(request_conditions(before.request), given)
        laws = laws or before.request.laws
        alternatives = before.request.alternatives if alternatives is None else alternatives
    budget = make_budget(given)
    if output is not None:
        check_writable(output)
    from moeplan.planner import recommend as search

    with out.Progress() as progress:
        plan = search(
            budget,
            laws=laws or None,
            alternatives=5 if alternatives is None else alternatives,
            threads=threads,
            command=command,
            progress=progress,
        )
    if output is not None:
        with atomic_write(output) as file:
            file.write(plan.to_text())
    from moeplan.report.sections import plan_sections

    changed = []
    if before is not None:
        from moeplan.changes import plan_changes
        from moeplan.report.differences import change_section

        changed = [change_section(plan_changes(before, plan), str(source))]
    if as_json:
        out.emit_json(plan.to_json())
        out.note_sections(changed)
    else:
        out.emit_sections([*changed, *plan_sections(plan)], markdown=as_markdown)
    if output:
        click.echo(f"Plan written to {output}", err=True)
