"""`moeplan compare`: MoE against dense side by side, or any two models."""

from __future__ import annotations

from typing import Any

import click

from moeplan.cli.display import Display, display_options
from moeplan.cli.models import complete_model
from moeplan.cli.options import (
    given_options,
    model_option,
    option,
    page_options,
    request_options,
    threads_option,
)
from moeplan.cli.program import Command

_OF_MODELS = ("memory", "gpus", "seq_len", "weight_dtype", "kv_dtype", "context", "concurrency")
"""Conditions that two models take too."""


@click.command(cls=Command)
@click.argument("models", nargs=-1, shell_complete=complete_model)
@option(
    "--equal",
    type=click.Choice(["compute", "memory", "loss", "resources"]),
    heading="Comparison",
    help="What the dense models have as much of as the MoE; resources is params, compute and data at once. "
    "[default: each in turn]",
)
@model_option("--tokens", metavar="COUNT", help="Training tokens of MODELS that bring none: 15T.")
@request_options
@display_options
@page_options
@threads_option
@click.pass_obj
def compare(
    command: str,
    /,
    models: tuple[str, ...],
    equal: str | None,
    tokens: str | None,
    laws: tuple[str, ...],
    display: Display,
    plot: str | None,
    html: str | None,
    threads: int,
    **options: Any,
) -> None:
    """Set a recommended MoE beside dense models, or any two models beside each other.

    With a budget: the MoE that moeplan recommends beside the compute-optimal dense model of the same compute, dense
    models with as many params as it has in total and active ones, and the dense model that is as good. With two MODELS
    (plan files, config.json files or names of bundled models): these. Training tokens stand behind a model as in
    deepseek-v3@14.8T; a plan file brings its own, and a bundled model those published. A plan file alone is set beside
    dense models, as with the budget that it was made for.

    \b
    Examples:
      moeplan compare --flops 1e22 --memory 80GB
      moeplan compare --flops 1e22 --memory 80GB --equal resources
      moeplan compare --flops 1e22 --memory 80GB --html compare.html
      moeplan compare qwen3-30b-a3b@36T deepseek-v3@14.8T
      moeplan compare plan.json
      moeplan compare plan.json my/config.json --tokens 2T
    """
    from moeplan.cost.inference_memory import InferenceSettings
    from moeplan.plan.budget_fields import make_budget
    from moeplan.report import output as out
    from moeplan.studies.comparison import compare as side_by_side

    given = given_options(options)
    settings: dict[str, Any] = {"threads": threads, "command": command}
    subjects: tuple[Any, ...] = models
    plan = _plan_alone(models)
    if plan is not None:
        if tokens is not None:
            raise click.UsageError("--tokens belongs to two models; a plan brings its own")
        subjects, again = _asked_again(plan, given, laws)
        settings |= {"equal": equal or "overview", **again}
    elif models:
        if len(models) != 2:
            raise click.UsageError(
                f"{len(models)} model{'s' if len(models) > 1 else ''} to compare; give two, a plan file alone, or "
                "none with --flops and --memory for a MoE beside dense models"
            )
        named = {name: value for name, value in given.items() if value}
        strange = [flag for flag, value in (("--equal", equal), ("--law", laws)) if value]
        strange += [_flag(name) for name in named if name not in _OF_MODELS]
        if strange:
            instead = ", or ask moeplan inspect, which takes it, of each" if strange[0] == "--measured" else ""
            raise click.UsageError(f"{strange[0]} has no place with two models; leave it out{instead}")
        serving = {name: named[name] for name in _OF_MODELS[3:] if name in named}
        settings |= {name: named.get(name) for name in ("memory", "gpus", "seq_len")}
        settings |= {"tokens": tokens, "serving": InferenceSettings(**serving)}
    else:
        if tokens is not None:
            raise click.UsageError("--tokens belongs to two models; with a budget the tokens are part of the answer")
        served = "inference" in given.get("memory_for", ("inference",))
        if not any(given.get(name) for name in ("flops", "days")) or (served and not given.get("memory")):
            what = f"--equal {equal}" if equal else "a comparison"
            raise click.UsageError(f"{what} needs a budget (--flops and --memory){'' if equal else ', or two models'}")
        subjects = (make_budget(given),)
        settings |= {"equal": equal or "overview", "laws": laws or None}
    with out.Progress() as progress:
        found = side_by_side(*subjects, progress=progress, **settings)
    with out.Delivery() as delivery:
        if plot or html:
            from moeplan.report.comparison_page import write_comparison

            delivery.attempt(lambda: write_comparison(found, plot=plot, html=html))
        from moeplan.report.comparison import comparison_sections
        from moeplan.report.screen.comparison import comparison_screen

        display.show(found, screen=lambda: comparison_screen(found), full=lambda: comparison_sections(found))


def _plan_alone(models: tuple[str, ...]) -> Any:
    """The plan, where it is all that is to be compared: with dense models, then."""
    if len(models) != 1:
        return None
    from moeplan.plan.existing import read_model

    return read_model(models[0]).plan


def _asked_again(plan: Any, given: dict[str, Any], laws: tuple[str, ...]) -> tuple[tuple[Any], dict[str, Any]]:
    """The budget of a plan, changed by what is given now, with the laws and the rule that chose it."""
    from moeplan.plan.budget_fields import make_budget
    from moeplan.plan.law_selection import laws_again
    from moeplan.plan.repeat import override, request_fields

    asked = plan.request
    budget = make_budget(override(request_fields(asked), given))
    return (budget,), {"laws": laws_again(asked.laws, asked.weights, laws), "choose": asked.choose}


def _flag(name: str) -> str:
    """The option that sets a condition."""
    flags = {"ranges": "--range", "tied_embeddings": "--tied"}
    return flags.get(name, f"--{name.replace('_', '-')}")
