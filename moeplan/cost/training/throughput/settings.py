"""Everything the model of throughput takes as given, read from `data/throughput.yaml`.

Constants that a fit moves (`Constants`), kernels by family of devices (`Kernels`), software (`Software`) and the
interval's parts (`ErrorBand`). The module has no numbers of its own.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from moeplan.cost.devices import Device, bundled
from moeplan.cost.training.throughput.kernels import Rates
from moeplan.cost.training.throughput.words import TrainPrecision
from moeplan.errors import UsageError
from moeplan.laws.reader import FileSection

Graph = Literal["none", "partial", "full"]
"""How much of a step CUDA graphs replay: nothing, parts of each layer, or the whole iteration."""
Dispatcher = Literal["alltoall", "flex"]
"""How rows travel to experts: an all-to-all of a row an expert, or DeepEP and HybridEP, which send a token once."""


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What is fitted, beside three that no run tells. Shares are of a peak; times in seconds."""

    products_bf16: float
    """Rate of products in training over that of the kernel table, bf16."""
    products_fp8: float
    """The same, fp8 and mxfp8."""
    products_nvfp4: float
    """The same, nvfp4."""
    grouped: float
    """Rate of grouped products over that of dense ones."""
    attention: float
    """Rate of attention in training over that of the kernel table."""
    recurrent: float
    """Rate of recurrences in chunks (Mamba-2, delta rules), on any device [FLOP/s]."""
    recurrent_start: float
    """Time of a block with a recurrence and micro-batch that its tokens do not change [s]."""
    attention_ultra: float
    """Rate of attention on Blackwell Ultra over Blackwell, whose exponentials are slower."""
    power: float
    """Exponent of watts per peak FLOP/s in what products sustain."""
    traffic: float
    """Bytes of element-wise kernels over the least they must move, at the memory's peak."""
    fused: float
    """Share of the experts' element-wise traffic that a fused expert block leaves."""
    host_layer: float
    """Host time of one MoE layer and micro-batch, without graphs [s]."""
    host_graph: float
    """The same with partial graphs [s]."""
    host_expert: float
    """Further host time in low precision, with one local expert [s]; it grows with their number to the power .6."""
    host_dense: float
    """Host time of one dense layer and micro-batch, without graphs [s]; half with partial ones."""
    sync: float
    """Wait for the count of rows an expert, a MoE layer and micro-batch [s]."""
    link: float
    """Share of the links' peak that exchanges of rows reach."""
    peer: float
    """Time that each further GPU adds to an exchange of rows [s]."""
    network: float
    """Share of the network's peak."""
    hidden: float
    """Share of the exchange of rows that its overlap hides."""
    tensor: float
    """Time of tensor-parallel collectives over bytes by the links' peak, with their overlap."""
    exposed: float
    """Share that shows of gathering sharded weights and of passing keys and values."""
    update: float
    """Time of gradient sum and optimizer over the bytes they must move."""
    step: float
    """Time of a step outside all layers [s]."""
    imbalance: float
    """Work of the fullest device's experts over an even share, where routing is free."""
    maturity_2025: float
    """Time over today's software, releases of 2025."""
    maturity_2026: float
    """The same, releases of 2026 before 26.06."""

    def scaled(self, **factors: float) -> Constants:
        """These with some multiplied."""
        return dataclasses.replace(self, **{name: getattr(self, name) * by for name, by in factors.items()})


@dataclass(frozen=True, kw_only=True)
class ConstantPrior:
    """What was known of a constant before the fit."""

    centre: float
    """Its most likely value."""
    ln_sd: float
    """Standard deviation of its logarithm."""


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """What kernel tables show of a family of devices."""

    efficiency: float
    """Share of the bf16 peak that large products reach."""
    low_efficiency: float
    """Share of the fp8 or fp4 peak."""
    half_depth: float
    """k0 of bf16 products [features]."""
    bandwidth: float
    """Share of the memory's bandwidth within products."""
    launch: float
    """Start of a kernel [s]."""
    attention: float
    """Share of the bf16 peak that attention reaches over long sequences."""
    half_seq_len: float
    """Tokens at which it reaches half of that."""
    narrow_heads: float
    """Share of that with heads of 64."""
    watts_per_tflops: float
    """Power a bf16 TFLOP/s at which products sustain all of their rate [W/(TFLOP/s)]."""
    attention_ultra: bool = False
    """Whether attention runs at Blackwell Ultra's rate."""
    precisions: tuple[str, ...] = ()
    """Precisions that its devices have."""


@dataclass(frozen=True, kw_only=True)
class Software:
    """What the training software does; the presets are named in `data/throughput.yaml`."""

    graph: Graph = "none"
    """CUDA graphs."""
    dispatcher: Dispatcher = "alltoall"
    """Exchange of rows."""
    overlap_dispatch: bool = False
    """Whether the exchange of one micro-batch runs beside the work of another."""
    fused_experts: bool = False
    """Whether one kernel does products, activation and quantisation of the experts."""
    overlap_tensor: bool = False
    """Whether tensor-parallel collectives run beside products."""
    drop_tokens: bool = False
    """Whether experts have a fixed capacity, so that the host need not know how many rows came."""
    maturity: Literal["now", "2026", "2025"] = "now"
    """Whose software: today's (releases 26.06 on), that of early 2026, or of 2025."""
    note: str = ""
    """What it stands for."""


@dataclass(frozen=True, kw_only=True)
class ErrorBand:
    """How far the model errs, in natural logarithms."""

    site_ln_sd: float
    """Common to all designs at one site, so that it cancels between them."""
    design_ln_sd: float
    """Different from design to design: the left-out error of a model that the fit never saw."""
    layer_ln_sd: float
    """Of one timed layer, as a measure of its site."""
    imbalance_ln_sd: float
    """Of the experts' work under free routing; it counts by the share of time it touches."""


@dataclass(frozen=True)
class _File:
    constants: Constants
    priors: dict[str, ConstantPrior]
    fixed: frozenset[str]
    kernels: dict[str, Kernels]
    software: dict[str, Software]
    band: ErrorBand


@functools.cache
def _file() -> _File:
    top = bundled("throughput.yaml")
    names = [f.name for f in dataclasses.fields(Constants)]
    rows = top.section("constants")
    rows.only(names, names)
    values, priors, fixed = {}, {}, set()
    for name in names:
        row = rows.section(name)
        row.only(("value", "prior", "ln_sd", "ln_stderr", "source"), ("value", "source"))
        values[name] = row.number("value")
        if "prior" in row:
            priors[name] = ConstantPrior(centre=row.number("prior"), ln_sd=row.number("ln_sd"))
        else:
            fixed.add(name)
    kernels = {name: _record(Kernels, row) for name, row in _rows(top.section("kernels"))}
    software = {name: _record(Software, row) for name, row in _rows(top.section("software"))}
    band = _record(ErrorBand, top.section("band"))
    return _File(Constants(**values), priors, frozenset(fixed), kernels, software, band)


def _rows(section: FileSection) -> list[tuple[str, FileSection]]:
    return [(name, section.section(name)) for name in section]


def _record(kind: type[Any], row: FileSection) -> Any:
    fields = [f.name for f in dataclasses.fields(kind)]
    row.only((*fields, "source"))
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k != "source"})


def constants() -> Constants:
    """The calibrated constants."""
    return _file().constants


def priors() -> dict[str, ConstantPrior]:
    """What was known of each fitted constant before; the others stay as they are."""
    return _file().priors


def band() -> ErrorBand:
    """How far the calibrated model errs."""
    return _file().band


def software_presets() -> dict[str, Software]:
    """The named software, simplest first."""
    return _file().software


def load_software(name: str | Software) -> Software:
    """The software called `name`; raises `UsageError` with the names there are."""
    if isinstance(name, Software):
        return name
    presets = software_presets()
    if name in presets:
        return presets[name]
    near = difflib.get_close_matches(str(name), presets, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(presets)}"
    raise UsageError(f"unknown software {name!r}; {hint}")


def kernels_of(device: Device) -> Kernels:
    """The kernels of a device's family; raises `UsageError` for a family that is not known."""
    families = _file().kernels
    if device.kernels not in families:
        raise UsageError(f"device {device.name}: kernels {device.kernels!r} must be one of {', '.join(families)}")
    return families[device.kernels]


def peak_flops(device: Device, precision: str) -> float:
    """Dense peak of a device in a precision of training [FLOP/s]: that of nvfp4 is twice that of fp8.

    Raises `UsageError` for a precision that is unknown, or that the device's kernels do not have.
    """
    if precision not in get_args(TrainPrecision):
        raise UsageError(f"precision {precision!r} must be one of {', '.join(get_args(TrainPrecision))}")
    have = [x for x in kernels_of(device).precisions if x == "bf16" or device.fp8_flops is not None]
    if precision not in have:
        raise UsageError(f"device {device.name} has no {precision} for training; use {' or '.join(have)}")
    if precision == "bf16":
        return device.bf16_flops
    return cast(float, device.fp8_flops) * (2 if precision == "nvfp4" else 1)


_BYTES = {"bf16": 2.0, "fp8": 1.0, "mxfp8": 1 + 1 / 32, "nvfp4": 0.5 + 1 / 16}
"""Bytes of a number that enters a product, with the scale that its block shares."""
_LOW_HALF_DEPTH = 200.0
"""k0 of products in low precision, which start with quantised blocks (fit to the same tables)."""


def rates(device: Device, precision: str, constants: Constants) -> Rates:
    """What the kernels of a device sustain in training in a precision."""
    kernels, peak = kernels_of(device), peak_flops(device, precision)
    fed = 1.0
    if device.watts is not None:
        fed = min(device.watts / (device.bf16_flops / 1e12) / kernels.watts_per_tflops, 1.0) ** constants.power
    bf16 = fed * kernels.efficiency * constants.products_bf16 * device.bf16_flops
    low = constants.products_nvfp4 if precision == "nvfp4" else constants.products_fp8
    flops = bf16 if precision == "bf16" else fed * kernels.low_efficiency * low * peak
    ultra = constants.attention_ultra if kernels.attention_ultra else 1.0
    return Rates(
        flops=flops,
        bf16_flops=bf16,
        grouped_flops=flops * constants.grouped,
        recurrent_flops=constants.recurrent,
        attention_flops=fed * kernels.attention * constants.attention * ultra * device.bf16_flops,
        half_depth=kernels.half_depth if precision == "bf16" else _LOW_HALF_DEPTH,
        half_seq_len=kernels.half_seq_len,
        narrow_heads=kernels.narrow_heads,
        bandwidth=kernels.bandwidth * device.bandwidth,
        launch=kernels.launch,
        bytes=_BYTES[precision],
    )
