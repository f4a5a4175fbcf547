"""Published figures of serving throughput, what the model has for them, and the fit of its constants to them.

Rows stand in `data/serving.yaml`. `fit` repeats the fit; `left_out` says how far off the model is for models, and for
devices, that took no part in it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from moeplan.architecture.published import find_model
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Gpus, bundled, load_device
from moeplan.cost.inference_memory import InferenceSettings, KVDtype, WeightDtype
from moeplan.cost.serving.settings import Constants, constants, priors
from moeplan.cost.serving.throughput import Load, Split, serving_throughput
from moeplan.numerics import Floats

_ROW = ("model", "device", "num_gpus", "split", "weights", "cache", "prompt", "answer", "tokens_per_second_per_gpu")
_ERROR = 0.3
"""Standard deviation of the logarithm of one row, which weighs rows against priors."""


@dataclass(frozen=True)
class Served:
    """One published figure."""

    model: str
    """The model."""
    architecture: Architecture
    """Its shape."""
    gpus: Gpus
    """Devices that serve one copy."""
    split: Split
    """How they share it."""
    settings: InferenceSettings
    """Dtypes."""
    load: Load
    """Prompts and answers."""
    concurrency: float | None
    """Sequences at a time; None for as many as fit."""
    tokens_per_second_per_gpu: float
    """Answer tokens a second of one device, as published."""
    source: str
    """Where it is published."""

    def predicted(self, using: Constants | None = None) -> float:
        """What the model has for it [tokens/s]."""
        found = serving_throughput(
            self.architecture,
            self.gpus,
            self.load,
            self.settings,
            concurrency=self.concurrency,
            splits=(self.split,),
            using=using,
        )
        return float(found.tokens_per_second_per_gpu)

    def ln_error(self, using: Constants | None = None) -> float:
        """ln(predicted / published)."""
        return math.log(self.predicted(using) / self.tokens_per_second_per_gpu)


@functools.cache
def published_serving() -> tuple[Served, ...]:
    """Every row of the data file."""
    data = bundled("serving.yaml")
    sources = data.section("sources")
    rows = []
    for row in data.sections("rows"):
        row.only((*_ROW, "concurrency", "source"), (*_ROW, "source"))
        name = row.text("model")
        rows.append(
            Served(
                name,
                _shape(name),
                Gpus(int(row.number("num_gpus")), load_device(row.text("device"))),
                cast(Split, row.text("split")),
                InferenceSettings(cast(WeightDtype, row.text("weights")), cast(KVDtype, row.text("cache"))),
                Load(prompt_tokens=int(row.number("prompt")), answer_tokens=int(row.number("answer"))),
                row.number("concurrency") if "concurrency" in row else None,
                row.number("tokens_per_second_per_gpu"),
                sources.text(row.text("source")),
            )
        )
    return tuple(rows)


@functools.cache
def _shape(name: str) -> Architecture:
    """A model that rows are of: described in the data file itself, or a bundled one."""
    own = bundled("serving.yaml").section("models")
    return Architecture.from_dict(dict(own.section(name))) if name in own else find_model(name).architecture


@functools.cache
def published_sizes() -> tuple[int, int]:
    """The fewest and the most active params of the models that the rows are of."""
    names = {row.text("model") for row in bundled("serving.yaml").sections("rows")}
    sizes = [_shape(name).active_params() for name in names]
    return min(sizes), max(sizes)


def fit(rows: Sequence[Served]) -> tuple[Constants, dict[str, float]]:
    """The constants that fit rows best, and the standard errors of their logarithms.

    Least squares of ln(predicted/published) over `_ERROR`, with the priors of the data file.
    """
    from scipy.optimize import least_squares

    known = priors()
    names = list(known)
    centre = np.log([known[name].centre for name in names])
    sd = np.array([known[name].ln_sd for name in names])

    def at(x: Floats) -> Constants:
        return dataclasses.replace(constants(), **dict(zip(names, np.exp(x).tolist(), strict=True)))

    def errors(x: Floats) -> Floats:
        using = at(x)
        return np.array([row.ln_error(using) / _ERROR for row in rows] + ((x - centre) / sd).tolist())

    found = least_squares(errors, centre, diff_step=1e-4)
    stderr = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))
    return at(found.x), dict(zip(names, stderr.tolist(), strict=True))


def left_out(rows: Sequence[Served], by: str) -> dict[str, list[float]]:
    """ln(predicted / published) of rows by the fit to all others, by their "model" or "device"."""
    groups: dict[str, list[Served]] = {}
    for row in rows:
        groups.setdefault(row.model if by == "model" else row.gpus.device.name, []).append(row)
    result = {}
    for name, own in groups.items():
        using, _ = fit([row for row in rows if row not in own])
        result[name] = [row.ln_error(using) for row in own]
    return result
