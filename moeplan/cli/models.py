"""The commands that read and write models: `moeplan inspect` and `moeplan export`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from moeplan.cli.display import Display, display_options
from moeplan.cli.options import (
    complete_variable,
    file_option,
    model_option,
    serving_options,
    threads_option,
    training_option,
)
from moeplan.cli.program import Command, Option
from moeplan.modules import modules_in

TARGETS = modules_in("plan/export/targets")


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Names of bundled models, or files."""
    from click.shell_completion import CompletionItem

    from moeplan.architecture.published import published_models

    names = [name.lower().partition(" (")[0] for name in published_models()]
    words = [CompletionItem(name) for name in names if name.startswith(incomplete.lower())]
    return words or [CompletionItem(incomplete, type="file")]


@click.command(cls=Command)
@click.argument("model", required=False, shell_complete=complete_model)
@training_option("--tokens", metavar="COUNT", help="Training tokens: 15T. Asks the laws.")
@training_option("--flops", metavar="FLOPS", help="Training compute in place of --tokens: 3e24.")
@training_option("--seq-len", type=int, help="Sequence length that FLOPs are counted at. [default: 4096]")
@training_option(
    "--memory",
    metavar="SIZE",
    help="Memory to serve it in (80GB, 8x80GB): does it fit, for how many users? Also the limit of the laws' own "
    "designs. [default of that: what MODEL needs]",
)
@training_option("--gpus", metavar="NxGPU", help="GPUs to train it on: 64xH100. Layouts, memory, tokens/s, MFU, days.")
@training_option("--layout", metavar="LAYOUT", help="One layout: tp=1,pp=2,ep=8,vp=2,mbs=1. [default: the fastest]")
@training_option("--batch", type=click.IntRange(1), help="Sequences of a step. [default: the leverage law's]")
@training_option("--train-precision", metavar="TYPE", help="Of products: bf16, fp8, mxfp8, nvfp4. [default: bf16]")
@training_option("--software", metavar="PRESET", help="eager, partial graphs or full graphs. [default: partial graphs]")
@training_option("--optimizer", metavar="SCHEME", help="Scheme of optimizer state. [default: megatron]")
@training_option(
    "--measured",
    multiple=True,
    metavar="RUN",
    help='A run of yours that calibrates --gpus: "MODEL on 64xH100, tp=1,pp=2,ep=8: 666000 tokens/s", or a YAML file '
    "of such; repeatable.",
)
@training_option("--balanced", is_flag=True, help="Routing is forced to be even, as benchmarks do.")
@serving_options
@display_options
@threads_option
def inspect(
    model: str | None,
    tokens: str | None,
    flops: str | None,
    seq_len: int | None,
    memory: str | None,
    gpus: str | None,
    layout: str | None,
    batch: int | None,
    train_precision: str | None,
    software: str | None,
    optimizer: str | None,
    measured: tuple[str, ...],
    balanced: bool,
    display: Display,
    threads: int,
    **serving: Any,
) -> None:
    """Say what an existing model is, and what the laws say of it.

    MODEL is a Hugging Face config.json, its folder, a plan file, or a bundled published model; without it, the bundled
    models are listed. Of weight files (*.safetensors, their index, a folder) the headers give the exact params. With
    --tokens or --flops the laws judge it, with --gpus it is trained and with --memory served. Nothing is downloaded.

    \b
    Examples:
      moeplan inspect deepseek-v3
      moeplan inspect deepseek-v3 --tokens 14.8T
      moeplan inspect qwen3-30b-a3b --gpus 64xH100 --layout tp=1,pp=2,ep=8
      moeplan inspect deepseek-v3 --memory 8x141GB --weights fp8 --context 32768
      moeplan inspect my/model/config.json --context 32768 --weights fp8
      moeplan inspect my/model/model.safetensors.index.json
    """
    from moeplan.report import output as out

    if model is None:
        _refuse_questions("a MODEL to ask it of")
        from moeplan import records
        from moeplan.architecture.published import published_models
        from moeplan.report.inspection import model_list_sections

        models = list(published_models().values())
        display.show_all(lambda: records.to_json(models), lambda: model_list_sections(models))
        return
    if _weights_alone(model):
        _refuse_questions("the model's config.json beside its weight files")
        from moeplan.report.stored_weights import weights_sections
        from moeplan.studies.stored_weights import stored_weights

        held = stored_weights(model)
        display.show_all(held.to_json, lambda: weights_sections(held))
        return
    from moeplan.studies.inspection import inspect as look

    with out.Progress() as progress:
        found = look(
            model,
            tokens=tokens,
            flops=flops,
            seq_len=seq_len,
            memory=memory,
            gpus=gpus,
            layout=layout,
            batch=batch,
            train_precision=train_precision,
            software=software,
            optimizer=optimizer,
            measured=measured,
            balanced=balanced,
            threads=threads,
            progress=progress,
            **serving,
        )
    from moeplan.report.inspection import inspection_sections
    from moeplan.report.screen.inspection import inspection_screen

    command = click.get_current_context().obj
    display.show(found, screen=lambda: inspection_screen(found, command), full=lambda: inspection_sections(found))


def _refuse_questions(needs: str) -> None:
    """Refuse options of training and serving where there is no architecture that could answer them."""
    context = click.get_current_context()
    for option in context.command.params:
        asks = isinstance(option, Option) and option.heading in {"Training", "Serving"}
        if asks and context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} needs {needs}")


def _weights_alone(model: str) -> bool:
    """Whether a path leads to weights and to no config of their model."""
    from pathlib import Path

    from moeplan.architecture.hf.safetensors import has_weights

    path = Path(model)
    return bool(model.strip()) and path.exists() and has_weights(path) and not (path / "config.json").exists()


@click.command(cls=Command)
@click.argument("model", metavar="PLAN", shell_complete=complete_model)
@model_option(
    "--to",
    "target",
    type=click.Choice(list(TARGETS)),
    help=f"What is written: {'; '.join(f'{name}, {what}' for name, what in TARGETS.items())}.",
)
@model_option(
    "--alternative", type=int, metavar="NUMBER", help="Another design of the plan: the alternative of that number."
)
@model_option(
    "--fix",
    multiple=True,
    metavar="NAME=VALUE",
    shell_complete=complete_variable,
    help="Any other design of the plan's search, by its variables: num_experts=64; repeatable.",
)
@model_option("--tokens", metavar="COUNT", help="Training tokens of an existing model: 15T. [default: as published]")
@model_option(
    "--layout",
    metavar="DEGREES",
    help="How training is spread over GPUs: tp=2,pp=4,ep=8,dp=16. [default: the plan's first that it can express]",
)
@model_option(
    "--hyperparameters",
    metavar="LAW",
    help="Law whose learning rate and batch are written, one of the plan's. [default: its first]",
)
@file_option("--output", help="Write to a file in place of stdout.")
@file_option("--sbatch", help="With --to megatron and --output: write a Slurm batch file that starts it too.")
@threads_option
def export(
    model: str,
    target: str | None,
    alternative: int | None,
    fix: tuple[str, ...],
    tokens: str | None,
    layout: str | None,
    hyperparameters: str | None,
    output: str | None,
    sbatch: str | None,
    threads: int,
) -> None:
    """Write a plan as a configuration that a trainer or a server loads.

    The model it builds has exactly the plan's params. A design that the trainer cannot express is refused with the
    reason. PLAN may also be an existing model: a Hugging Face config.json, its folder, or a bundled published model.

    \b
    Examples:
      moeplan export plan.json --to hf --output config.json
      moeplan export plan.json --to megatron --layout tp=2,ep=8,dp=8
      moeplan export plan.json --to megatron --output plan.args --sbatch plan.sbatch
      moeplan export plan.json --to torchtitan --alternative 2
      moeplan export plan.json --to vllm
      moeplan export deepseek-v3 --to megatron --tokens 14.8T
    """
    from moeplan.cost.training.parallelism import read_layout
    from moeplan.plan.budget_fields import parse_fix
    from moeplan.plan.export import exported, takes_layout
    from moeplan.plan.export.job import job_of, with_hyperparameters
    from moeplan.report import output as out

    if target is None:
        for name, what in TARGETS.items():
            click.echo(f"--to {name:{max(map(len, TARGETS))}}  {what}", err=True)
        raise click.UsageError("--to is missing: give one of the targets above")
    if layout is not None and not takes_layout(target):
        raise click.UsageError(f"--layout has no place in {target}; leave it out")
    if sbatch is not None and (target != "megatron" or output is None):
        raise click.UsageError("--sbatch goes with --to megatron and --output, whose file it names")
    given = read_layout(layout) if layout is not None else None
    with out.Progress() as progress:
        job = job_of(
            model, alternative=alternative, fix=parse_fix(fix), tokens=tokens, threads=threads, progress=progress
        )
    if hyperparameters:
        job = with_hyperparameters(job, hyperparameters)
    found = exported(job, target, layout=given)
    files = {output: found.text}
    if sbatch is not None:
        from moeplan.plan.export.sbatch import sbatch as batch_file

        files[sbatch] = batch_file(job, found.layout, str(output))
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    if output is None:
        out.emit(found.text)
        return
    from moeplan.files import atomic_write

    for path, text in files.items():
        with atomic_write(str(path)) as file:
            file.write(text)
        click.echo(f"Written to {path}", err=True)
