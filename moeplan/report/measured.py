"""Measurements of a device, as a section of text and tables."""

from __future__ import annotations

from moeplan.cost.devices import Device
from moeplan.cost.measured import MeasuredSpeeds, TimedLayer
from moeplan.quantities import number, percent
from moeplan.report.blocks import Column, Paragraph, Section, Table, table
from moeplan.report.text import NONE


def measured_section(device: Device) -> Section:
    """Its layers, then its speeds and latencies."""
    found = device.measured
    assert found is not None
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return Section(
        f"Measured: {device.name}",
        (
            _layers(found, device.bf16_flops),
            Table(tuple(_speeds(found)), ("what", "speed"), right=(1,)),
            Paragraph(f"A layer forward and backward, without optimizer. {versions}."),
        ),
    )


def _layers(found: MeasuredSpeeds, peak_flops: float) -> Table:
    def graph(layer: TimedLayer) -> str:
        return NONE if layer.graph_seconds is None else number(1e3 * layer.graph_seconds)

    columns: tuple[Column, ...] = (
        ("layer", lambda layer: "MoE" if layer.expert_products else "dense"),
        (">tokens", lambda layer: f"{layer.sequences * layer.seq_len:,}"),
        (">ms", lambda layer: number(1e3 * layer.seconds)),
        (">ms as a graph", graph),
        (">MFU", lambda layer: percent(layer.flops / (layer.graph_seconds or layer.seconds) / peak_flops)),
        ("experts by", lambda layer: layer.expert_products or NONE),
    )
    return table((found.dense_layer, found.moe_layer), columns)


def _speeds(found: MeasuredSpeeds) -> list[tuple[str, str]]:
    rows = [(f"product of {found.product_size}x{found.product_size}, {found.precision}", _flops(found.product_flops))]
    for what, speeds in (
        ("grouped product", found.grouped_product_flops),
        ("its weights' gradient", found.grouped_gradient_flops),
    ):
        rows += [(f"{what}, {tokens} tokens an expert", _flops(flops)) for tokens, flops in speeds.items()]
    rows += [
        ("causal attention, forward", _flops(found.attention_flops)),
        ("causal attention, backward", _flops(found.attention_backward_flops)),
        ("copying within its memory", _bytes(found.copy_bytes_per_second)),
        ("permuting rows", _bytes(found.permute_bytes_per_second)),
        ("starting an operation", _micro(found.launch_seconds)),
        ("waiting for a result", _micro(found.sync_seconds)),
    ]
    for what, groups in (("all-to-all", found.all_to_all), ("all-gather", found.all_gather)):
        rows += [(f"{what}, {x.ranks} ranks, {where}", _bytes(x.bytes_per_second)) for where, x in groups.items()]
    return rows


def _flops(value: float) -> str:
    return f"{number(value / 1e12)} TFLOP/s" if value >= 1e12 else f"{number(value / 1e9)} GFLOP/s"


def _bytes(value: float) -> str:
    return f"{number(value / 1e12)} TB/s" if value >= 1e12 else f"{number(value / 1e9)} GB/s"


def _micro(seconds: float) -> str:
    return f"{number(1e6 * seconds)} us"
