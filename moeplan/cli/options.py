"""Options that several commands have, under their headings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import click
from click.core import ParameterSource

from moeplan.architecture.plannable import PLANNABLE, STATES
from moeplan.cli.program import Option
from moeplan.cli.requests import replaced, take_request

option = functools.partial(click.option, cls=Option)
budget_option = functools.partial(option, heading="Budget")
training_option = functools.partial(option, heading="Training")
design_option = functools.partial(option, heading="Design")
model_option = functools.partial(option, heading="Model")
serving_option = functools.partial(option, heading="Serving")
output_option = functools.partial(option, heading="Output")
file_option = functools.partial(output_option, metavar="FILE", writes=True)

threads_option = output_option(
    "--threads", type=int, default=1, help="Threads to search with; the answer is the same. [default: 1]"
)
"""The option --threads."""


def stacked(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Several options as one decorator; they stand in the help in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for add in reversed(options):
            command = add(command)
        return command

    return decorate


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a model is served: dtypes of weights and cache, its tokens and sequences."""
    for decorate in (
        serving_option("--concurrency", type=int, help="Served sequences at a time. [default: 1]"),
        serving_option("--context", type=int, help="Tokens of one served sequence. [default: 8192]"),
        serving_option("--kv-dtype", type=click.Choice(["bf16", "fp8"]), help="Dtype of the KV cache. [default: bf16]"),
        serving_option(
            "--weights",
            "weight_dtype",
            type=click.Choice(["bf16", "fp8", "int8", "int4", "mxfp4"]),
            help="Dtype of the served weights. [default: bf16]",
        ),
    ):
        command = decorate(command)
    return command


demand_options = stacked(
    serving_option(
        "--served", metavar="COUNT", help="Tokens served over the model's life, out of the same budget: 40T."
    ),
    serving_option("--serve-gpus", metavar="GPUS", help="Devices that hold one copy: 8xH100, or 8xmy/device.yaml."),
    serving_option("--prompt-tokens", type=int, help="Tokens of a served prompt. [default: 1024]"),
    serving_option("--answer-tokens", type=int, help="Tokens of its answer. [default: 1024]"),
    serving_option("--tokens-per-second-per-user", type=float, help="Least speed at which a user is answered."),
    serving_option("--serve-price-per-gpu-hour", type=float, help="Price of an hour of --serve-gpus."),
)
"""Options of what is served over a model's life."""


def formats(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options --json and --markdown."""
    command = output_option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")(command)
    return output_option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _checked(name: str) -> Callable[..., Any]:
    """A callback that refuses, before anything is computed, a file that `moeplan.report.pictures` cannot write."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is None or ctx.resilient_parsing:
            return value
        from moeplan.report import pictures

        return str(getattr(pictures, name)(value))

    return check


page_options = stacked(
    file_option(
        "--plot",
        callback=_checked("check_plot"),
        help="Write the charts to a .svg or .png file; a .png needs moeplan[plot].",
    ),
    file_option(
        "--html",
        callback=_checked("check_page"),
        help="Write a page that needs no network: tables, interactive charts, sources; printed, a summary comes first.",
    ),
)
"""The options --plot and --html, passed as `plot` and `html`; hand both to `moeplan.report.pictures.write_pictures`."""


def one_format(as_json: bool, as_markdown: bool) -> None:
    """Refuse --json together with --markdown."""
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown exclude each other; give one")


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


def complete_variable(ctx: click.Context, param: click.Parameter, incomplete: str, after: str = "=") -> list[Any]:
    """Names of design variables, each with `after` behind it."""
    from click.shell_completion import CompletionItem

    from moeplan.plan.search.variables import DESIGN_VARIABLES

    return [
        CompletionItem(f"{name}{after}", help=variable.meaning)
        for name, variable in DESIGN_VARIABLES.items()
        if f"{name}{after}".startswith(incomplete)
    ]


budget_options = stacked(
    budget_option(
        "--request",
        metavar="FILE",
        reads=True,
        is_eager=True,
        callback=take_request,
        help="Read options from a YAML file, by the words of the flags; flags given besides take their place.",
    ),
    budget_option("--flops", metavar="FLOPS", help="Training compute: 1e22, 10e21, 5ZFLOP."),
    budget_option("--memory", metavar="SIZE", help="Memory the served model must fit: 80GB, 80GiB, 8x80GB."),
    budget_option(
        "--tokens-available", metavar="COUNT", help="Unique training tokens there are: 2T. [default: no limit]"
    ),
    budget_option("--max-epochs", type=float, help="How often they may be repeated. [default: 4]"),
    budget_option("--max-tokens", metavar="COUNT", help="Most training tokens, repeats included. [default: 100T]"),
    budget_option("--inference-tokens", metavar="COUNT", help="Tokens served over the lifetime, paid out of --flops."),
)
"""Options of the budget: compute, memory, data."""

training_options = stacked(
    training_option("--gpus", metavar="GPUS", help="Devices to train on: 256xH100, or 64xmy/device.yaml."),
    training_option("--days", type=float, help="Days on them: the budget, in place of --flops."),
    training_option("--goodput", type=float, help="Share of the days that trains. [default: 0.9]"),
    training_option(
        "--optimise",
        type=click.Choice(["flops", "time", "money"]),
        help="What designs are compared at equal amounts of; on given GPUs money is time. "
        "[default: time with --days, else flops]",
    ),
    training_option(
        "--train-precision",
        type=click.Choice(["bf16", "fp8", "mxfp8", "nvfp4"]),
        help="Of matrix products in training. [default: bf16]",
    ),
    training_option(
        "--software",
        metavar="NAME",
        help="Training software: eager, partial graphs, full graphs, ... [default: partial graphs]",
    ),
    training_option(
        "--layout", metavar="DEGREES", help="Fix these of the layout: tp=1,pp=8,ep=16. [default: the fastest that fits]"
    ),
    training_option("--batch", type=int, help="Most sequences of a step. [default: by the law of the batch]"),
    training_option(
        "--multiple-of",
        multiple=True,
        metavar="NAME=N",
        help="Sizes that must be multiples: num_experts=32, d_expert=128, or what a trainer needs: megatron, "
        "torchtitan; repeatable.",
    ),
    training_option(
        "--mfu",
        type=float,
        help="Share of the dense bf16 peak reached over all days. [default: predicted for each design]",
    ),
    training_option(
        "--measured",
        multiple=True,
        metavar="RUN",
        help='A run of yours that calibrates its GPUs: "MODEL on 64xH100, tp=1,pp=2,ep=8: 666000 tokens/s", or a YAML '
        "file of such; repeatable.",
    ),
    training_option("--price-per-gpu-hour", type=float, help="Price of a device-hour, in any currency."),
    training_option(
        "--memory-for",
        type=click.Choice(["inference", "training", "both"]),
        multiple=True,
        help="What must fit: the served model into --memory, training into the GPUs. [default: inference]",
    ),
    training_option(
        "--optimizer",
        metavar="NAME",
        help="Optimizer scheme: megatron, zero1, zero3, fsdp2, adam8bit, muon, ... [default: megatron]",
    ),
)
"""Options of training: devices, time, utilisation, optimizer."""

design_options = stacked(
    design_option(
        "--fix",
        multiple=True,
        metavar="NAME=VALUE",
        shell_complete=complete_variable,
        help="Fix a design variable: granularity=8, total_params=36B; repeatable.",
    ),
    design_option(
        "--range",
        "ranges",
        multiple=True,
        metavar="NAME=LO..HI",
        shell_complete=complete_variable,
        help="Bound a design variable: tokens=1T..2T; repeatable.",
    ),
    design_option("--vocab-size", type=int, help="Rows of the embedding. [default: 131072; fewer below 1e21 FLOPs]"),
    design_option("--seq-len", type=int, help="Training sequence length. [default: 4096]"),
    design_option(
        "--tied/--untied",
        "tied_embeddings",
        default=None,
        help="Whether the output head is the embedding. [default: tied below 1e21 FLOPs]",
    ),
    design_option(
        "--attention",
        metavar="|".join((*PLANNABLE, *(f"{word}-N:1" for word in STATES))),
        help="Attention; gdn-3:1 is three gated delta-nets to one full. [default: gqa]",
    ),
    design_option("--latent", type=int, help="Experts in so many times less width: 2 or 4. [default: 1]"),
)
"""Options that fix, bound or assume something of the design."""

law_option = option(
    "--law",
    "laws",
    multiple=True,
    metavar="LAW",
    heading="Laws",
    shell_complete=complete_law,
    help="Law to maximise: NAME, NAME/FIT or a YAML file; repeatable. Replaces the default set; with =WEIGHT behind "
    "it, sets a law's weight in the set instead: zhao2025=0.5. "
    "[default: tian2025, zhao2025, ludziejewski2025, abnar2025; equal weights]",
)
"""The option --law."""

headroom_option = serving_option("--headroom", type=float, help="Share of the memory that stays free. [default: 0.1]")
"""The option --headroom."""


request_options = stacked(
    budget_options, training_options, law_option, design_options, serving_options, demand_options, headroom_option
)
"""Everything that a recommendation may be asked under."""


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as the fields of a budget that `moeplan.plan.budget_fields.make_budget` takes.

    Flags take the place of what a request file says of the same, of fixed and bounded variables one by one.
    """
    context = click.get_current_context(silent=True)
    if context is None or not options.get("request"):
        return _fields(options)
    from moeplan.plan.repeat import override

    for note in replaced(context):
        click.echo(f"Note: {note}", err=True)
    flags = {name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    asked = {name: value for name, value in (context.default_map or {}).items() if name in options}
    nothing: dict[str, Any] = {"fix": (), "ranges": ()}
    named = {name: value for name, value in options.items() if name in flags}
    return override(_fields(nothing | asked), _fields(nothing | named))


def _fields(options: Mapping[str, Any]) -> dict[str, Any]:
    from moeplan.plan.budget_fields import parse_fix, parse_multiples, parse_ranges

    options = {name: value for name, value in options.items() if name != "request"}
    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name in (
        "mfu",
        "days",
        "batch",
        "vocab_size",
        "served",
        "tokens_per_second_per_user",
    ):  # 0 means, in Python, that none is given
        if str(given.get(name)).strip() in ("0", "0.0"):
            raise click.UsageError(f"--{name.replace('_', '-')} 0 must be above 0")
    from moeplan.cost.devices import assumed_device

    for name in ("gpus", "serve_gpus"):
        note = assumed_device(str(given.get(name, "")))
        if note:
            click.echo(f"Note: {note}", err=True)
    if "multiple_of" in given:
        given["multiple_of"] = parse_multiples(given["multiple_of"])
    return given | {"fix": parse_fix(options["fix"]), "ranges": parse_ranges(options["ranges"])}
