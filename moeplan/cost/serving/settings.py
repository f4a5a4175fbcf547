"""Constants of serving throughput and the published figures behind them, read from `data/serving.yaml`."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

from moeplan.cost.devices import bundled


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What a group of devices reaches. Shares are of a device's peak."""

    memory: float
    """Bandwidth of memory in decode."""
    bf16: float
    """Products in bf16."""
    fp8: float
    """Products in fp8."""
    grouped: float
    """Rate of the experts' products over that of others."""
    attention: float
    """Attention, in bf16."""
    layer_us: float
    """Time of a layer in a decode step beside reading and computing [us]."""
    experts_us: float
    """Further time of a layer with experts [us]."""
    exchange_us: float
    """Time of one exchange between devices, whatever its size [us]."""
    link: float
    """Links and network."""
    most_sequences: float
    """Sequences that one device batches."""


@dataclass(frozen=True)
class Prior:
    """What is known of a constant before the rows are looked at."""

    centre: float
    """Its middle."""
    ln_sd: float
    """Standard deviation of its logarithm."""


@dataclass(frozen=True)
class Spread:
    """How far a prediction may be off: standard deviations of its logarithm."""

    device_ln_sd: float
    """Common to all designs on one device with its software: it cancels where designs are compared."""
    design_ln_sd: float
    """What differs from design to design."""

    @property
    def ln_sd(self) -> float:
        """Both together."""
        return math.hypot(self.device_ln_sd, self.design_ln_sd)


@functools.cache
def constants() -> Constants:
    """The bundled constants."""
    section = bundled("serving.yaml").section("constants")
    return Constants(
        **{field.name: section.section(field.name).number("value") for field in dataclasses.fields(Constants)}
    )


@functools.cache
def priors() -> dict[str, Prior]:
    """The priors of those that are fitted."""
    section = bundled("serving.yaml").section("constants")
    rows = {name: section.section(name) for name in section}
    return {name: Prior(row.number("prior"), row.number("ln_sd")) for name, row in rows.items() if "ln_sd" in row}


@functools.cache
def spread() -> Spread:
    """The bundled spread."""
    section = bundled("serving.yaml").section("spread")
    return Spread(section.number("device_ln_sd"), section.number("design_ln_sd"))
