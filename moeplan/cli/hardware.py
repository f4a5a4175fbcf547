"""`moeplan hardware`: devices, utilisations, and the model of a step's time against published runs."""

from __future__ import annotations

import click

from moeplan.cli.options import formats, one_format, option
from moeplan.cli.program import Command


@click.command(cls=Command)
@click.argument("name", required=False)
@option("--layouts", is_flag=True, heading="Options", help="Show the model of a step's time against published runs.")
@option(
    "--fit-throughput",
    "runs",
    metavar="FILE",
    heading="Options",
    help="Fit the model of training throughput to a JSON table of runs, and show its errors on models, devices and "
    "families left out. Takes minutes.",
)
@formats
def hardware(name: str | None, layouts: bool, runs: str | None, as_json: bool, as_markdown: bool) -> None:
    """List the devices that plans can be made for, or show one.

    NAME is a device (H100) or a YAML file of one (my/device.yaml).

    \b
    Examples:
      moeplan hardware
      moeplan hardware H200
      moeplan hardware --fit-throughput rows.json
    """
    from moeplan.cost.devices import devices, load_device
    from moeplan.records import to_json
    from moeplan.report import hardware as report
    from moeplan.report import output as out

    one_format(as_json, as_markdown)
    if runs:
        if name or layouts:
            raise click.UsageError("--fit-throughput shows one fit; leave out NAME and --layouts")
        from moeplan.cost.training.throughput.calibrate import judge
        from moeplan.cost.training.throughput.runs import read_runs
        from moeplan.report.throughput import calibration_record, calibration_sections

        table = read_runs(runs)
        judgement = judge(table.runs)
        if as_json:
            out.emit_json(calibration_record(table, judgement))
        else:
            out.emit_sections(calibration_sections(table, judgement), markdown=as_markdown)
        return
    chosen = [load_device(name)] if name else list(devices().values())
    if layouts and (name or as_json):
        raise click.UsageError("--layouts shows one table as text or Markdown; leave out NAME and --json")
    if layouts:
        out.emit_sections(report.layout_sections(), markdown=as_markdown)
    elif as_json:
        out.emit_json(to_json(report.hardware_record(chosen)))
    else:
        out.emit_sections(report.hardware_sections(chosen), markdown=as_markdown)
