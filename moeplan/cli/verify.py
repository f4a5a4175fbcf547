"""`moeplan verify`: short proxy runs that measure the leverage, and runs that a fit suggests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from moeplan.cli.display import Display, display_options
from moeplan.cli.options import file_option, option, output_option, page_options
from moeplan.cli.program import Command
from moeplan.texts import counted

runs_option = functools.partial(option, heading="Runs")
machine_option = functools.partial(option, heading="Machines")


@click.command(cls=Command)
@click.argument("plan")
@runs_option("--time", metavar="TIME", help="Time of the runs: 90s, 5m, 2h. [default: 2m on a CPU, 5m on a GPU]")
@runs_option("--budget", metavar="FLOPS", help="Compute of all runs together, in place of --time: 5e12.")
@runs_option("--seeds", type=int, help="Seeds of every size at every budget. [default: 2; of suggested runs 1]")
@runs_option(
    "--data",
    metavar="PATH",
    help="Text or tokens to train on: a file or folder (text, .jsonl, .jsonl.gz, .parquet, nanoGPT, llm.c and Megatron "
    ".bin). [default: Python source code that this machine has]",
)
@runs_option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Of matrix products. [default: auto]")
@runs_option("--controls", is_flag=True, help="Also run comparisons whose answer is known: one expert, frozen router.")
@runs_option("--dry-run", is_flag=True, help="Print the runs with compute, tokens, memory and time; train nothing.")
@runs_option(
    "--folder",
    metavar="FOLDER",
    help="Where runs and a copy of the text are kept, to resume from. [default: beside PLAN, .verify]",
)
@machine_option(
    "--engine",
    type=click.Choice(["local", "ray", "slurm", "plan"]),
    help="Where runs happen; plan prints one command a run. [default: local]",
)
@machine_option("--workers", type=int, help="Runs at a time. [default: one a core, or what the GPUs take]")
@machine_option("--device", help="auto, cpu or cuda. [default: auto]")
@machine_option("--address", metavar="ADDRESS", help="Ray cluster. [default: a local one, started for this]")
@machine_option(
    "--slurm",
    multiple=True,
    metavar="NAME=VALUE",
    help="What Slurm is told: partition=gpu, account=me, timeout_min=120; cluster=local needs no Slurm; repeatable.",
)
@output_option(
    "--report-to",
    type=click.Choice(["tensorboard", "wandb", "mlflow"]),
    help="Write loss, learning rate and router load of finished runs to a tracker; needs the extra tracking.",
)
@display_options
@page_options
@file_option("--output", help="Write the result to a JSON file.")
@file_option("--save", help="Write the runs to a CSV file that moeplan fit reads.")
@click.pass_obj
def verify(
    command: str,
    /,
    plan: str,
    time: str | None,
    budget: str | None,
    seeds: int | None,
    data: str | None,
    precision: str | None,
    controls: bool,
    dry_run: bool,
    folder: str | None,
    engine: str | None,
    workers: int | None,
    device: str | None,
    address: str | None,
    slurm: tuple[str, ...],
    report_to: str | None,
    display: Display,
    plot: str | None,
    html: str | None,
    output: str | None,
    save: str | None,
) -> None:
    """Measure a plan's leverage, or train suggested runs.

    PLAN is a plan's file, or a list of runs that moeplan fit --suggest wrote.

    Of a plan it trains small models with the plan's experts, and dense ones beside them, on text that you give or that
    this machine has, and prints the measured Efficiency Leverage with its interval beside the predicted one. Such runs
    lie far below the domain of the laws: they can show on which side of 1 the leverage is, not how large it will be.

    Suggested runs are trained as listed; their losses are printed, and saved for moeplan fit. They need text for at
    most 4 epochs (mostly --data), and take no --time, --budget or --controls.

    \b
    Examples:
      moeplan verify plan.json --dry-run
      moeplan verify plan.json
      moeplan verify plan.json --time 10m --seeds 4 --data my/text --controls
      moeplan verify plan.json --engine slurm --slurm partition=gpu --time 2h
      moeplan verify plan.json --save runs.csv --output verification.json
      moeplan verify plan.json --report-to tensorboard
      moeplan verify next.json --dry-run
      moeplan verify next.json --data my/text --save runs.csv
    """
    from moeplan.report import output as out
    from moeplan.verification import study
    from moeplan.verification.subject import read_subject
    from moeplan.verification.verify import study_of

    for name, path in (("data", data), ("folder", folder)):
        if path is not None and not path.strip():  # which would be the folder one is in
            raise click.UsageError(f"--{name} {path!r} names no file or folder; write it like my/{name}")
    subject = read_subject(plan)
    where = _where(engine, workers, device, address, slurm, report_to)
    request = _request(time, budget, seeds, data, precision, controls)
    asked = study_of(subject, request)
    if data is not None:
        from moeplan.verification.text import fingerprint

        fingerprint(data)  # an output that is an input is told before torch is asked for
    require_torch()
    from moeplan.verification.engines.plan import Commands
    from moeplan.verification.progress import Bars

    report = _report(asked)
    from pathlib import Path  # late, so that --help starts fast

    place = Path(folder) if folder is not None else Path(plan).with_suffix(".verify")
    if dry_run:
        with out.Progress() as progress:
            progress("reading text and probing this machine")
            planned = study.outline(asked, place, where)
        display.show(
            planned,
            screen=lambda: report.outline_screen(planned, command),
            full=lambda: report.outline_sections(planned),
        )
        return
    with Bars(place) as bars:
        try:
            found = study.run(asked, place, where, listen=bars.hear, announce=bars.announce, command=command)
        except Commands as left:
            bars.stop()
            click.echo(
                f"{counted(len(left.commands), 'run(s)')} left; run these, then the same command again:", err=True
            )
            out.emit("".join(f"{line}\n" for line in left.commands))
            return
    sections, charts = report.sections(found), report.charts(found)
    from moeplan.report.blocks import Section
    from moeplan.verification.save import runs_csv

    with out.Delivery() as delivery:
        delivery.write(output, found.to_text)
        delivery.write(save, lambda: runs_csv(found.runs, found.outline.seq_len))
        delivery.pictures(
            plot=plot, html=html, title=report.title, sections=[*sections, Section("Charts", charts)],
            data=found.to_json(), command=command, summary=report.summary(found, sections), record=report.record,
        )  # fmt: skip
        display.show(found, screen=lambda: report.screen(found), full=lambda: sections)


class Report(NamedTuple):
    """How a study is reported."""

    outline_screen: Callable[[Any, str], Any]
    """The first screen of what will be run, asked by a command."""
    outline_sections: Callable[[Any], Any]
    """All of what will be run."""
    screen: Callable[[Any], Any]
    """The first screen of what was found."""
    sections: Callable[[Any], Any]
    """All of what was found."""
    charts: Callable[[Any], Any]
    """Pictures of it."""
    summary: Callable[[Any, Any], Any]
    """What a print begins with, of what was found and all of its sections."""
    title: str
    """What a page is about."""
    record: str
    """The file name under which a page offers its JSON."""


def _report(asked: Any) -> Report:
    from moeplan.verification.leverage_study import LeverageStudy

    if isinstance(asked, LeverageStudy):
        from moeplan.report import verification as own
        from moeplan.report.screen import verification as first

        return Report(
            first.outline_screen,
            own.outline_sections,
            first.verification_screen,
            own.verification_sections,
            own.verification_charts,
            first.verification_summary,
            "A plan checked by proxy runs",
            "verification.json",
        )
    from moeplan.report import proxy_runs as runs

    outlined, sections = runs.proxy_outline_sections, runs.proxy_runs_sections  # short as they are
    return Report(
        lambda outline, _: outlined(outline),
        outlined,
        sections,
        sections,
        runs.proxy_runs_charts,
        runs.proxy_runs_summary,
        "Suggested runs, trained",
        "proxy_runs.json",
    )


def _request(
    time: str | None,
    budget: str | None,
    seeds: int | None,
    data: str | None,
    precision: str | None,
    controls: bool,
) -> Any:
    from moeplan.units import parse_flops
    from moeplan.verification.options import StudyOptions, parse_duration

    given: dict[str, Any] = {"seeds": seeds, "data": data, "precision": precision}
    if time is not None:
        given["time"] = parse_duration(time, "--time")
    if budget is not None:
        given["budget"] = parse_flops(budget, "--budget")
    return StudyOptions(controls=controls, **{name: value for name, value in given.items() if value is not None})


def _where(
    engine: str | None,
    workers: int | None,
    device: str | None,
    address: str | None,
    slurm: tuple[str, ...],
    report_to: str | None,
) -> Any:
    from moeplan.verification.options import Where

    options = {}
    for text in slurm:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise click.UsageError(f"--slurm {text!r} is not NAME=VALUE; write it like partition=gpu")
        options[name] = value
    if workers is not None and workers < 1:
        raise click.UsageError(f"--workers {workers} must be at least 1")
    given: dict[str, Any] = {"engine": engine, "workers": workers, "device": device, "address": address}
    given["report_to"] = report_to
    return Where(**{name: value for name, value in given.items() if value is not None}, slurm=options)


def require_torch(find: Callable[[str], object] | None = None) -> None:
    """Raise `UsageError` with the command that installs it where torch is missing."""
    from importlib.util import find_spec

    from moeplan.errors import UsageError

    if (find or find_spec)("torch") is None:
        raise UsageError("verify trains small models and needs torch; install it by pip install 'moeplan[verify]'")
