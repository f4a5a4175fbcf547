"""Devices, and the utilisation that published runs reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moeplan.cost.devices import Device, PublishedMfu, published_mfu
from moeplan.quantities import number, percent
from moeplan.report.blocks import Column, Items, Paragraph, Section, table
from moeplan.report.measured import measured_section
from moeplan.report.text import NONE
from moeplan.report.view import View


def hardware_sections(devices: Sequence[Device]) -> list[Section]:
    """Devices as a table, with their sources; then the utilisation of published runs."""
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
    runs: tuple[Column, ...] = (
        ("published run", "{run}"),
        ("hardware", "{hardware}"),
        (">MFU", lambda run: NONE if run.mfu is None else "–".join(dict.fromkeys(percent(x, 2) for x in run.mfu))),
        ("products", "{precision}"),
        ("source", "{source}"),
        ("confidence", "{confidence}"),
    )
    legend = (
        "MFU: share of the dense bf16 peak that model FLOPs reach. Plans predict their own, by a model calibrated on "
        "other published runs; --mfu takes yours."
    )
    return Section("Published utilisation", (table(map(View, published_mfu()), runs), Paragraph(legend)))


@dataclass(frozen=True)
class HardwareRecord:
    """What `moeplan hardware --json` prints."""

    devices: tuple[Device, ...]
    """The devices."""
    published_mfu: tuple[PublishedMfu, ...]
    """Published runs."""


def hardware_record(devices: Sequence[Device]) -> HardwareRecord:
    """Devices and published runs."""
    return HardwareRecord(tuple(devices), published_mfu())


def _tera(flops: float | None) -> str:
    return NONE if flops is None else number(flops / 1e12, 4)
