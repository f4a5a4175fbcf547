"""Device presets, utilisation presets and the published runs behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moeplan.architecture.published import find_model
from moeplan.cost.devices import Device, MfuPreset, PublishedMfu, mfu_presets, published_mfu
from moeplan.cost.training.step_time import published_steps
from moeplan.errors import UsageError
from moeplan.quantities import number, percent
from moeplan.report.blocks import Block, Column, Items, Paragraph, Section, Table, table
from moeplan.report.measured import measured_section
from moeplan.report.text import NONE
from moeplan.report.view import View
from moeplan.units import format_count


def hardware_sections(devices: Sequence[Device]) -> list[Section]:
    """Devices as a table, with their sources; then utilisation presets and published runs."""
    columns: tuple[Column, ...] = (
        ("device", "{name}"),
        (">bf16 TFLOP/s", lambda device: _tera(device.bf16_flops)),
        (">fp8 TFLOP/s", lambda device: _tera(device.fp8_flops)),
        (">memory", "{memory_bytes}"),
        (">GB/s", lambda device: number(device.bandwidth / 1e9, 4)),
        ("confidence", "{confidence}"),
    )
    notes = Items(tuple(f"{x.name}: {x.source}{f' ({x.note})' if x.note else ''}." for x in devices))
    listed = table(map(View, devices), columns)
    sections = [
        Section("Devices", (listed, Paragraph("Peaks are dense, without sparsity."))),
        Section("Sources", (notes,)),
    ]
    sections += [measured_section(device) for device in devices if device.measured]
    return [*sections, _mfu_section()] if len(devices) > 1 else sections


def _mfu_section() -> Section:
    presets: tuple[Column, ...] = (("preset", "{name}"), (">MFU", "{mfu}"), ("for", lambda preset: _covers(preset.it)))
    runs: tuple[Column, ...] = (
        ("published run", "{run}"),
        ("hardware", "{hardware}"),
        (">MFU", lambda run: NONE if run.mfu is None else "–".join(dict.fromkeys(percent(x, 2) for x in run.mfu))),
        ("products", "{precision}"),
        ("source", "{source}"),
        ("confidence", "{confidence}"),
    )
    legend = "MFU: share of the dense bf16 peak that model FLOPs reach; a dense model takes the first preset."
    blocks = (table(map(View, mfu_presets()), presets), table(map(View, published_mfu()), runs), Paragraph(legend))
    return Section("Utilisation", blocks)


def _covers(preset: MfuPreset) -> str:
    if not preset.min_active_params:
        return "any other model"
    active = format_count(preset.min_active_params)
    return f"granularity up to {number(preset.max_granularity)}, {active} active params or more"


@dataclass(frozen=True)
class PresetRecord:
    """A utilisation to expect of a kind of model."""

    name: str
    """tuned, ordinary, or small or fine-grained."""
    mfu: float
    """Share of the dense bf16 peak that model FLOPs reach."""
    min_active_params: float
    """Fewest active params it is for."""


@dataclass(frozen=True)
class HardwareRecord:
    """What `moeplan hardware --json` prints."""

    devices: tuple[Device, ...]
    """The devices."""
    mfu_presets: tuple[PresetRecord, ...]
    """Utilisations to expect."""
    published_mfu: tuple[PublishedMfu, ...]
    """Published runs."""


def hardware_record(devices: Sequence[Device]) -> HardwareRecord:
    """Devices, presets and published runs."""
    presets = tuple(PresetRecord(x.name, x.mfu, x.min_active_params) for x in mfu_presets())
    return HardwareRecord(tuple(devices), presets, published_mfu())


def _tera(flops: float | None) -> str:
    return NONE if flops is None else number(flops / 1e12, 4)


def layout_sections() -> list[Section]:
    """The model of a step's time against published runs whose layout is known, each with its error."""
    rows, missing = [], []
    for step in published_steps():
        try:
            architecture = find_model(step.model).architecture
        except UsageError:
            missing.append(step.model)
            continue
        error = step.error(architecture)
        rows.append(
            (
                step.model,
                str(step.gpus),
                str(step.layout),
                step.precision,
                percent(step.mfu),
                percent(step.mfu * (1 + error)),
                f"{100 * error:+.0f} %",
                step.release,
            )
        )
    columns = ("model", "GPUs", "layout", "products", "published MFU", "by the model", "error", "release")
    blocks: list[Block] = [Table(tuple(rows), columns, right=(4, 5, 6))]
    if missing:
        blocks.append(Paragraph(f"Not bundled as a model, so not compared: {', '.join(dict.fromkeys(missing))}."))
    blocks.append(
        Paragraph(
            "Runs of NVIDIA Megatron-Bridge's performance summary. The model overlaps nothing and starts kernels for "
            "free: it ranks layouts, and its times are shown only relative to each other."
        )
    )
    return [Section("The model of a step's time against published runs", tuple(blocks))]
