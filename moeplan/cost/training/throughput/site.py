"""How fast one site is beside the runs that the model was calibrated on: one factor, common to all designs there.

Before anything is measured its logarithm is normal around 0 with the standard deviation `Band.site_ln_sd`. Each
measurement of true over predicted speed, of a whole run or of one timed layer, moves it by Bayes' rule with the error
that it has itself: `Band.design_ln_sd` for a run, `Band.layer_ln_sd` for a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Device
from moeplan.cost.measured import TimedLayer
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput.layer import StepSetting, layer_terms
from moeplan.cost.training.throughput.runs import Run
from moeplan.cost.training.throughput.settings import band, constants, load_software
from moeplan.errors import UsageError


@dataclass(frozen=True)
class Site:
    """The factor of a site on predicted speed, and how sure it is."""

    scale: float
    """True over predicted tokens/s."""
    ln_sd: float
    """Standard deviation of its logarithm."""


def unmeasured() -> Site:
    """A site of which nothing is known."""
    return Site(1.0, band().site_ln_sd)


def _updated(logs: Iterable[float], ln_sd: float, before: Site | None = None) -> Site:
    """The factor after measurements whose logarithms each err by `ln_sd`."""
    before = before or unmeasured()
    precision = 1 / before.ln_sd**2
    total = math.log(before.scale) * precision
    for log in logs:
        precision, total = precision + 1 / ln_sd**2, total + log / ln_sd**2
    return Site(math.exp(total / precision), precision**-0.5)


def site_of_runs(runs: Iterable[Run]) -> Site:
    """The site where these runs were measured; without any, one of which nothing is known."""
    logs = [math.log(run.tokens_per_second / float(run.step().tokens_per_second)) for run in runs]
    return _updated(logs, band().design_ln_sd)


def site_of_device(device: Device) -> Site:
    """The site of a device that `moeplan hardware --measure` described, from the two layers that it timed.

    A device without such a description is one of which nothing is known.
    """
    if device.measured is None:
        return unmeasured()
    layers = (device.measured.dense_layer, device.measured.moe_layer)
    logs = [math.log(layer_seconds(layer, device) / _timed(layer)) for layer in layers]
    return _updated(logs, band().layer_ln_sd)


def site_of(device: Device, runs: Iterable[Run] = ()) -> Site:
    """The site of a device's file, moved by runs that were measured there."""
    logs = [math.log(run.tokens_per_second / float(run.step().tokens_per_second)) for run in runs]
    return _updated(logs, band().design_ln_sd, site_of_device(device))


def _timed(layer: TimedLayer) -> float:
    return layer.seconds if layer.graph_seconds is None else layer.graph_seconds


def layer_seconds(layer: TimedLayer, device: Device) -> float:
    """What the model has for a timed layer in bf16, forward and backward, without the host's share [s].

    Raises `UsageError` for a layer that is not one layer.
    """
    architecture = Architecture.from_dict(layer.architecture)
    if architecture.num_layers != 1:
        raise UsageError(f"a timed layer of {architecture.num_layers} layers must be of one")
    setting = StepSetting(
        layout=Layout(micro_batch=layer.sequences),
        device=device,
        seq_len=layer.seq_len,
        precision="bf16",
        software=load_software("eager"),
        constants=constants(),
        balanced=True,
    )
    terms = layer_terms(architecture, setting, not architecture.is_dense)
    return float(sum(seconds for name, seconds in terms.items() if name != "host"))
