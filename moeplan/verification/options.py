"""Options of a study: how long, on which text, and where its runs happen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from moeplan.errors import UsageError
from moeplan.units import format_flops

SEEDS = 2
"""Seeds of every rung where none is given."""
SUGGESTED_SEEDS = 1
"""The same of suggested runs: where seeds are worth more than other runs, a run is listed more than once."""
PRECISIONS = ("auto", "fp32", "bf16")
"""Arithmetic of matrix products that can be asked for; auto takes what the probe finds faster."""


ENGINES = {
    "local": "processes of this machine, one a core, or two a GPU",
    "ray": "a Ray cluster, or a local one that is started for it",
    "slurm": "Slurm jobs, by submitit",
    "plan": "nowhere: prints one command for each run",
}
"""Where runs happen, by engine."""
DEVICES = ("auto", "cpu", "cuda")
"""Devices that runs may train on; auto takes GPUs where there are any. CUDA_VISIBLE_DEVICES says which."""


TRACKERS = ("tensorboard", "wandb", "mlflow")
"""Experiment trackers that can be reported to."""


@dataclass(frozen=True)
class StudyOptions:
    """Options of a study."""

    time: float | None = None
    """Time of the runs [s]; null for the default, or with a budget."""
    budget: float | None = None
    """Compute of all runs together [FLOPs], in place of a time."""
    seeds: int | None = None
    """Seeds of every rung, or of every listed run; null for `SEEDS` or `SUGGESTED_SEEDS`."""
    data: str = "builtin"
    """Text to train on."""
    controls: bool = False
    """Whether the controls run as well."""
    precision: str = "auto"
    """auto, fp32 or bf16."""

    def __post_init__(self) -> None:
        if self.time is not None and self.budget is not None:
            raise UsageError("a time and a compute budget exclude each other; give one")
        if self.seeds is not None and not 1 <= self.seeds <= 100:
            raise UsageError(f"seeds {self.seeds} must be 1 to 100")
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision {self.precision!r} must be one of {', '.join(PRECISIONS)}")


def check_suggested(request: StudyOptions) -> None:
    """Raise `UsageError` for what is asked of a plan's runs and cannot be of suggested ones."""
    for name in ("time", "budget", "controls"):
        if getattr(request, name):
            raise UsageError(
                f"the option {name} is for a plan; suggested runs have sizes and tokens of their own, so leave it out"
            )


@dataclass(frozen=True)
class Where:
    """Which engine runs things, and with what."""

    engine: str = "local"
    """One of `ENGINES`."""
    workers: int = 0
    """Runs at a time; 0 for one a core, or as many as the GPUs take."""
    device: str = "auto"
    """auto, cpu or cuda."""
    address: str = ""
    """Address of a Ray cluster; "" starts a local one."""
    slurm: dict[str, str] = field(default_factory=dict)
    """What submitit is told: partition, account, timeout_min; cluster=local runs without Slurm."""
    report_to: str = ""
    """The tracker that gets the curves of finished runs, one of `TRACKERS`; "" for none."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"engine {self.engine!r} must be one of {', '.join(ENGINES)}")
        if self.workers < 0:
            raise UsageError(f"workers {self.workers} must be at least 1")
        if self.device not in DEVICES:
            raise UsageError(f"device {self.device!r} must be one of {', '.join(DEVICES)}")
        if self.report_to and self.report_to not in TRACKERS:
            raise UsageError(f"report_to {self.report_to!r} must be one of {', '.join(TRACKERS)}")
        if self.address and self.engine != "ray":
            raise UsageError("an address is for the engine ray; give engine ray as well")
        if self.slurm and self.engine != "slurm":
            raise UsageError("Slurm options are for the engine slurm; give engine slurm as well")


def flops_option(flops: float) -> str:
    """Compute rounded up to two digits, as --budget reads it."""
    scale = 10.0 ** (math.floor(math.log10(flops)) - 1)
    return format_flops(math.ceil(flops / scale) * scale, 2)


def duration_option(seconds: float) -> str:
    """A time rounded up, as `parse_duration` reads it."""
    if seconds < 60:
        return f"{math.ceil(seconds / 5) * 5}s"
    if seconds < 3600:
        return f"{math.ceil(seconds / 60)}m"
    return f"{math.ceil(seconds / 3600)}h"


def parse_duration(text: str | float, what: str = "time") -> float:
    """Read a time [s]: 90s, 5m, 2h; a bare number is seconds. Raises `UsageError` for anything else."""
    units = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
    raw = str(text).strip().lower()
    digits = raw.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = raw[len(digits) :]
    try:
        value = float(digits) * units[unit]
    except (ValueError, KeyError):
        raise UsageError(f"{what} {text!r} is no duration; write it like 90s, 5m or 2h") from None
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{what} {text!r} must be positive and finite, for example 5m")
    return value
