"""Options that several commands have, under their headings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from moeplan.commands.program import Option

option = functools.partial(click.option, cls=Option)
budget_option = functools.partial(option, heading="Budget")
training_option = functools.partial(option, heading="Training")
design_option = functools.partial(option, heading="Design")
model_option = functools.partial(option, heading="Model")
serving_option = functools.partial(option, heading="Serving")
output_option = functools.partial(option, heading="Output")

threads_option = output_option(
    "--threads", type=int, default=2, help="Threads to search with; the answer is the same. [default: 2]"
)
"""The option --threads."""


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a model is served: dtypes of weights and cache, its tokens and sequences."""
    for decorate in (
        serving_option("--concurrency", type=int, help="Served sequences at a time. [default: 1]"),
        serving_option("--context", type=int, help="Tokens of one served sequence. [default: 8192]"),
        serving_option("--kv-dtype", type=click.Choice(["bf16", "fp8"]), help="Dtype of the KV cache. [default: bf16]"),
        serving_option(
            "--weights",
            "weight_dtype",
            type=click.Choice(["bf16", "fp8", "int8", "int4"]),
            help="Dtype of the served weights. [default: bf16]",
        ),
    ):
        command = decorate(command)
    return command


def formats(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options --json and --markdown."""
    command = output_option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")(command)
    return output_option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


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
