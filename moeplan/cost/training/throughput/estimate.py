"""The throughput of training one architecture under one layout, with its interval: `training_estimate`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Gpus
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput.settings import Software, band, load_software
from moeplan.cost.training.throughput.site import Site, site_of_device
from moeplan.cost.training.throughput.step import StepTime, step_time
from moeplan.cost.training.throughput.words import DEFAULT_SOFTWARE
from moeplan.errors import InfeasibleError

_Z80 = 1.2815515655446004
"""Standard deviations on either side that hold 80 % of a normal distribution."""


@dataclass(frozen=True)
class Spread80:
    """An 80 % interval around a prediction, in two parts."""

    site_ln_sd: float
    """Common to all designs at one site: it cancels where designs are compared [ln]."""
    design_ln_sd: float
    """What differs from design to design, with that of free routing [ln]."""

    @property
    def ln_sd(self) -> float:
        """Both together."""
        return math.hypot(self.site_ln_sd, self.design_ln_sd)

    def around(self, value: float, *, site: bool = True) -> tuple[float, float]:
        """The interval around `value`; without `site`, between designs of one site."""
        factor = math.exp(_Z80 * (self.ln_sd if site else self.design_ln_sd))
        return value / factor, value * factor


@dataclass(frozen=True)
class TrainingEstimate:
    """Throughput of training one architecture under one layout."""

    gpus: Gpus
    """On which GPUs."""
    layout: Layout
    """How it is spread."""
    batch: int
    """Sequences of a step."""
    seq_len: int
    """Tokens of a sequence."""
    precision: str
    """Of matrix products."""
    software: Software
    """By what software."""
    balanced: bool
    """Whether routing is forced to be even."""
    time: StepTime
    """A step by term, scaled to the site."""
    spread: Spread80
    """How far it may be off."""

    @property
    def tokens_per_second_per_gpu(self) -> float:
        """Tokens a second of one GPU."""
        return float(self.time.tokens_per_second)

    @property
    def interval(self) -> tuple[float, float]:
        """80 % interval of that."""
        return self.spread.around(self.tokens_per_second_per_gpu)

    @property
    def step_seconds(self) -> float:
        """One step [s]."""
        return float(self.time.total)

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: `settings.MFU_CONVENTION`."""
        return float(self.time.mfu(self.gpus.device))

    def days(self, tokens: float) -> float:
        """Days to train `tokens` tokens without a pause."""
        return tokens / (self.tokens_per_second_per_gpu * self.gpus.count) / 86400


def training_estimate(
    architecture: Architecture,
    gpus: Gpus,
    layout: Layout,
    *,
    batch: int,
    seq_len: int = 4096,
    precision: str = "bf16",
    software: str | Software = DEFAULT_SOFTWARE,
    balanced: bool = False,
    sharded_weights: bool = False,
    site: Site | None = None,
) -> TrainingEstimate:
    """Tokens a second, step by term, MFU and interval of `architecture` on `gpus` under `layout`.

    `site` is how fast the site is (`site.site_of_runs`); None takes what the device's file measured, and without that
    one of which nothing is known. Raises `InfeasibleError` for a layout that the architecture, the batch or the
    GPUs cannot have, and `UsageError` for a precision that the device does not have.
    """
    layout.check(architecture, seq_len)
    if layout.num_gpus != gpus.count:
        raise InfeasibleError(f"layout {layout} is for {layout.num_gpus} GPUs, not {gpus.count}; change dp")
    if batch < 1 or batch % (layout.dp * layout.micro_batch):
        raise InfeasibleError(
            f"batch {batch} must be a multiple of dp {layout.dp} times micro_batch {layout.micro_batch}"
        )
    chosen = load_software(software)
    time = step_time(
        architecture,
        layout,
        gpus.device,
        batch,
        seq_len,
        precision=precision,
        software=chosen,
        balanced=balanced,
        sharded_weights=sharded_weights,
    )
    errors = band()
    free = 0.0 if balanced or architecture.is_dense else errors.imbalance_ln_sd * float(time.touched)
    at = site_of_device(gpus.device) if site is None else site
    spread = Spread80(at.ln_sd, math.hypot(errors.design_ln_sd, free))
    time = dataclasses.replace(time, seconds=_scaled(time.seconds, 1 / at.scale))
    return TrainingEstimate(gpus, layout, batch, seq_len, precision, chosen, balanced, time, spread)


def _scaled(seconds: dict[str, Any], factor: float) -> dict[str, Any]:
    return {name: value * factor for name, value in seconds.items()}
