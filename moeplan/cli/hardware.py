"""`moeplan hardware`: devices, published utilisations, and the model of training throughput against runs."""

from __future__ import annotations

import click

from moeplan.cli.options import file_option, formats, one_format, option
from moeplan.cli.program import Command


@click.command(cls=Command)
@click.argument("name", required=False)
@option(
    "--fit-throughput",
    "runs",
    metavar="RUNS",
    heading="Options",
    help="Fit the model of training throughput to a JSON table of runs, and show its errors on models, devices and "
    "families left out. Takes minutes.",
)
@option("--measure", is_flag=True, help="Measure this machine for about a minute (needs the extra verify).")
@option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="What to measure. [default: auto]")
@file_option("--output", help="Write what was measured to a YAML file, a device for every command.")
@formats
@click.pass_obj
def hardware(
    command: str,
    /,
    name: str | None,
    runs: str | None,
    measure: bool,
    device: str | None,
    output: str | None,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """List the devices that plans can be made for, show one, or measure this one.

    NAME is a device (H100) or a YAML file of one (my/device.yaml).

    With --measure it times one dense and one MoE layer, products, attention, moving rows and starting operations, and
    under torchrun also all-to-all and all-gather.

    \b
    Examples:
      moeplan hardware
      moeplan hardware H200
      moeplan hardware --fit-throughput rows.json
      moeplan hardware --measure --output my_node.yaml
      torchrun --nproc-per-node 8 -m moeplan hardware --measure --output my_node.yaml
    """
    from moeplan.cost.devices import devices, load_device
    from moeplan.records import to_json
    from moeplan.report import hardware as report
    from moeplan.report import output as out

    one_format(as_json, as_markdown)
    if measure:
        if name or runs:
            raise click.UsageError("--measure is for this machine; leave out NAME and --fit-throughput")
        _measure(device or "auto", output, as_json, as_markdown)
        return
    for option_name, value in (("--device", device), ("--output", output)):
        if value is not None:
            raise click.UsageError(f"{option_name} is for --measure")
    if runs:
        if name:
            raise click.UsageError("--fit-throughput shows one fit; leave out NAME")
        _fit(runs, as_json, as_markdown)
        return
    chosen = [load_device(name)] if name else list(devices().values())
    if as_json:
        out.emit_json(to_json(report.hardware_record(chosen)))
    else:
        out.emit_sections(report.hardware_sections(chosen), markdown=as_markdown)


def _fit(runs: str, as_json: bool, as_markdown: bool) -> None:
    from moeplan.cost.training.throughput.calibrate import validate
    from moeplan.cost.training.throughput.runs import read_runs
    from moeplan.report import output as out
    from moeplan.report.throughput import calibration_record, calibration_sections

    table = read_runs(runs)
    validation = validate(table.runs)
    if as_json:
        out.emit_json(calibration_record(table, validation))
    else:
        out.emit_sections(calibration_sections(table, validation), markdown=as_markdown)


def _measure(device: str, output: str | None, as_json: bool, as_markdown: bool) -> None:
    from moeplan.cost.devices import device_file, read_device
    from moeplan.files import atomic_write, check_writable
    from moeplan.records import to_json
    from moeplan.report import hardware as report
    from moeplan.report import output as out
    from moeplan.verification.launch import optional

    optional("torch", "verify")
    if output is not None:
        check_writable(output)
    from moeplan.verification.measure import measure

    row = measure(device)
    if row is None:  # another rank of torchrun answers
        return
    text = device_file(row)
    found = read_device(text, output or "this device")
    if output is not None:
        with atomic_write(output) as file:
            file.write(text)
    if as_json:
        out.emit_json(to_json(report.hardware_record([found])))
    else:
        out.emit_sections(report.hardware_sections([found]), markdown=as_markdown)
