"""The command line: a thin reading of the library. Nothing but click is imported until a command runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from moeplan import __version__
from moeplan.commands_inspect import export, inspect
from moeplan.program import Option, Program


def complete_law(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Names of laws, of their fits after a slash, or files."""
    from click.shell_completion import CompletionItem

    from moeplan.laws import law_names, load_law

    name, slash, _ = incomplete.partition("/")
    names = law_names()
    if slash and name in names:
        words = [f"{name}/{fit}" for fit in load_law(name).fits]
    elif slash or incomplete.startswith("."):
        return [CompletionItem(incomplete, type="file")]
    else:
        words = list(names)
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def complete_variable(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Names of design variables."""
    from click.shell_completion import CompletionItem

    from moeplan.design import DESIGN_VARIABLES

    return [
        CompletionItem(f"{name}=", help=variable.meaning)
        for name, variable in DESIGN_VARIABLES.items()
        if f"{name}=".startswith(incomplete)
    ]


option = functools.partial(click.option, cls=Option)
budget_option = functools.partial(option, heading="Budget")
training_option = functools.partial(option, heading="Training")
design_option = functools.partial(option, heading="Design")
serving_option = functools.partial(option, heading="Serving")
output_option = functools.partial(option, heading="Output")


def formats(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options --json and --markdown."""
    command = output_option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")(command)
    return output_option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def one_format(as_json: bool, as_markdown: bool) -> None:
    """Refuse --json together with --markdown."""
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown exclude each other; give one")


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="moeplan", message="%(prog)s %(version)s")
def cli() -> None:
    """From a compute budget and a memory limit to an exact Mixture-of-Experts language model.

    Try: moeplan recommend --flops 1e22 --memory 80GB
    """


@cli.command()
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
    type=click.Choice(["inference", "training"]),
    multiple=True,
    help="What must fit: the served model into --memory, training into the GPUs; repeatable. [default: inference]",
)
@training_option(
    "--optimizer", metavar="NAME", help="Optimizer scheme: megatron, zero3, fsdp2, muon. [default: megatron]"
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
@serving_option(
    "--weights",
    "weight_dtype",
    type=click.Choice(["bf16", "fp8", "int8", "int4"]),
    help="Dtype of the served weights. [default: bf16]",
)
@serving_option("--kv-dtype", type=click.Choice(["bf16", "fp8"]), help="Dtype of the KV cache. [default: bf16]")
@serving_option("--context", type=int, help="Tokens of one served sequence. [default: 8192]")
@serving_option("--concurrency", type=int, help="Served sequences at a time. [default: 1]")
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
@output_option("--threads", type=int, default=2, help="Threads to search with; the answer is the same. [default: 2]")
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


@cli.command()
@click.argument("name", required=False, shell_complete=complete_law)
@option(
    "--check", is_flag=True, help="Recompute the papers' own numbers; exit code 1 if any differs.", heading="Options"
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
    from moeplan.laws import law_names, load_law
    from moeplan.laws.checks import run_checks
    from moeplan.report import laws as report
    from moeplan.report import output as out

    one_format(as_json, as_markdown)
    chosen = [load_law(item) for item in ([name] if name else law_names())]
    results = {law.full_name: run_checks(law) for law in chosen} if check or name else {}
    if check:
        if as_json:
            out.emit_json(report.check_record(results))
        else:
            out.emit_sections(report.check_sections(results), markdown=as_markdown)
        if not all(result.passed for found in results.values() for result in found):
            ctx.exit(1)
    elif name:
        found = results[chosen[0].full_name]
        if as_json:
            out.emit_json(report.law_record(chosen[0], found))
        else:
            out.emit_sections(report.law_sections(chosen[0], found), markdown=as_markdown)
    elif as_json:
        out.emit_json(report.list_record(chosen))
    else:
        out.emit_sections(report.list_sections(chosen), markdown=as_markdown)


@cli.command()
@click.argument("name", required=False)
@option("--layouts", is_flag=True, heading="Options", help="Show the model of a step's time against published runs.")
@formats
def hardware(name: str | None, layouts: bool, as_json: bool, as_markdown: bool) -> None:
    """List the devices that plans can be made for, or show one.

    NAME is a device (H100) or a YAML file of one (my/device.yaml).

    \b
    Examples:
      moeplan hardware
      moeplan hardware H200
    """
    from moeplan.hardware import devices, load_device
    from moeplan.report import hardware as report
    from moeplan.report import output as out

    one_format(as_json, as_markdown)
    chosen = [load_device(name)] if name else list(devices().values())
    if layouts:
        out.emit_sections(report.layout_sections(), markdown=as_markdown)
    elif as_json:
        out.emit_json(report.hardware_record(chosen))
    else:
        out.emit_sections(report.hardware_sections(chosen), markdown=as_markdown)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a plan file."""
    from moeplan.plan import plan_schema
    from moeplan.report.output import emit_json

    emit_json(plan_schema())


cli.add_command(inspect)
cli.add_command(export)


def main() -> None:
    """Run the command line."""
    cli(prog_name="moeplan")
