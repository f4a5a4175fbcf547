"""`moeplan upcycle`: a dense model made a MoE, or one from scratch?"""

from __future__ import annotations

from typing import Any

import click

from moeplan.cli.models import complete_model
from moeplan.cli.options import (
    budget_option,
    design_option,
    file_option,
    formats,
    one_format,
    output_option,
    threads_option,
    training_option,
)
from moeplan.cli.program import Command


@click.command(cls=Command)
@click.argument("dense", shell_complete=complete_model)
@budget_option("--flops", metavar="FLOPS", required=True, help="Compute for further training: 1e22.")
@budget_option("--dense-tokens", metavar="COUNT", help="Tokens DENSE was trained on: 15T. [default: as published]")
@budget_option("--memory", metavar="SIZE", help="Memory the served model must fit: 80GB, 8x80GB.")
@training_option("--gpus", metavar="GPUS", help="Devices to train on: 64xH100.")
@design_option("--experts", type=int, default=8, help="Copies of each feed-forward block. [default: 8]")
@design_option("--top-k", type=int, help="Active experts. [default: those of two copies]")
@design_option("--granularity", type=int, default=1, help="Experts that each copy is cut into. [default: 1]")
@design_option("--shared", is_flag=True, help="One more copy that every token passes through.")
@output_option(
    "--to",
    "target",
    type=click.Choice(["hf", "megatron"]),
    help="Print the upcycled model for a trainer: hf, config.json; megatron, arguments that load DENSE as it.",
)
@formats
@file_option("--output", help="Write what is printed with --to to a file.")
@threads_option
def upcycle(
    dense: str,
    target: str | None,
    as_json: bool,
    as_markdown: bool,
    output: str | None,
    **options: Any,
) -> None:
    """Upcycle a dense model into a MoE, or train one from scratch?

    DENSE is a Hugging Face config.json, its folder, or a bundled published model. The answer compares its upcycled MoE,
    exactly counted, with the best MoE from scratch for the same compute and memory, by what was measured of either.

    \b
    Examples:
      moeplan upcycle llama-3-8b --flops 1e22
      moeplan upcycle llama-3-8b --dense-tokens 15T --flops 1e22 --memory 8x80GB --gpus 64xH100
      moeplan upcycle my/config.json --dense-tokens 100B --flops 1e20 --granularity 8 --top-k 8
      moeplan upcycle llama-3-8b --flops 1e22 --to megatron --output upcycled.args
    """
    from moeplan.report import output as out
    from moeplan.studies.upcycling import upcycle as look

    one_format(as_json, as_markdown)
    if output is not None and target is None:
        raise click.UsageError("--output is for --to; add --to megatron, or redirect the answer")
    if target is not None and (as_json or as_markdown):
        raise click.UsageError("--to prints a file of its own; leave out --json and --markdown")
    with out.Progress() as progress:
        found = look(dense, progress=progress, **options)
    if target is None:
        from moeplan.report.upcycling import upcycling_sections

        if as_json:
            out.emit_json(found.to_json())
        else:
            out.emit_sections(upcycling_sections(found), markdown=as_markdown)
        return
    from moeplan.files import atomic_write
    from moeplan.plan.existing import settings_of_trained
    from moeplan.plan.export.job import job_of_shape
    from moeplan.plan.export.upcycling import export_upcycled

    job = job_of_shape(found.dense.name, found.architecture, found.seq_len, found.tokens)
    trained = settings_of_trained(dense)
    text = export_upcycled(job, target, found.granularity_of_copies, trained)
    for note in trained.notes:
        click.echo(f"Note: {note}", err=True)
    if output is None:
        out.emit(text)
        return
    with atomic_write(output) as file:
        file.write(text)
    click.echo(f"Written to {output}", err=True)
