"""Fields of a `Budget` by their names on the command line: read from text, and made a budget."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from moeplan.cost.devices import bundled
from moeplan.cost.inference_memory import InferenceSettings
from moeplan.cost.serving.demand import NAMES
from moeplan.errors import UsageError
from moeplan.plan.budget import Budget
from moeplan.units import parse_count, range_ends

SERVING = ("weight_dtype", "kv_dtype", "context", "concurrency")
"""Those that say how the model is served: fields of `InferenceSettings`."""
DEMAND = NAMES
"""Those that say what is served over its life: fields of `Demand`."""


def parse_fix(texts: Iterable[str]) -> dict[str, float]:
    """Read "granularity=8" or "total_params=36B"; raises `UsageError` for anything else, or a variable named twice."""
    fixed: dict[str, float] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals:
            raise UsageError(f"--fix {text!r} is not NAME=VALUE; write it like granularity=8 or total_params=36B")
        number = _number(value, f"--fix {name}")
        if fixed.setdefault(name, number) != number:
            raise UsageError(f"{name} is fixed twice, at {fixed[name]:g} and at {number:g}; give one")
    return fixed


def parse_ranges(texts: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Read "tokens=1T..2T"; raises `UsageError` for anything else, or a variable named twice."""
    ranges: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, equals, bounds = (part.strip() for part in text.partition("="))
        ends = range_ends(bounds)
        if not name or not equals or ends is None:
            raise UsageError(f"--range {text!r} is not NAME=LO..HI; write it like granularity=4..8 or tokens=1T..2T")
        if name in ranges:
            raise UsageError(f"{name} is bounded twice; give one range")
        ranges[name] = (_number(ends[0], f"--range {name}"), _number(ends[1], f"--range {name}"))
    return ranges


def parse_multiples(texts: Iterable[str]) -> dict[str, int]:
    """Read "num_experts=32", or a trainer of `data/trainers.yaml`, "megatron", whose multiples hold besides.

    Raises `UsageError` for anything else, or a size named twice.
    """
    multiples: dict[str, int] = {}
    preset: dict[str, int] = {}
    for text in texts:
        if text.strip() in trainers():
            for size, multiple in trainers()[text.strip()].items():
                preset[size] = math.lcm(preset.get(size, 1), multiple)
            continue
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals or not (value.isascii() and value.isdigit()):
            raise UsageError(
                f"--multiple-of {text!r} is not NAME=N; write it like num_experts=32 or d_expert=128, or name a "
                f"trainer: {', '.join(trainers())}"
            )
        if multiples.setdefault(name, int(value)) != int(value):
            raise UsageError(f"--multiple-of {name} is given twice, as {multiples[name]} and {value}; give one")
    return {name: math.lcm(multiples.get(name, 1), preset.get(name, 1)) for name in (*multiples, *preset)}


@functools.cache
def trainers() -> dict[str, dict[str, int]]:
    """The multiples that trainers need of a design's sizes, by trainer."""
    rows = bundled("trainers.yaml")
    return {
        trainer: {size: int(multiple) for size, multiple in rows.section(trainer).items() if size != "source"}
        for trainer in rows
    }


def _number(text: str, what: str) -> float:
    try:
        if float(text) == 0:  # no count, but a variable (num_shared_experts) may be 0
            return 0.0
    except ValueError:
        pass
    return parse_count(text, what)


def make_budget(fields: Mapping[str, Any]) -> Budget:
    """A `Budget` of fields by name, with defaults for the others; raises `UsageError` for values that cannot be."""
    absent = {
        "flops": not fields.get("days"),
        "memory": "inference" in fields.get("memory_for", ("inference",))
        and not (fields.get("serve_gpus") or fields.get("gpus")),
    }
    for name, example in (("flops", "--flops 1e22"), ("memory", "--memory 80GB")):
        if name not in fields and absent[name]:
            if name == "flops" and fields.get("gpus"):
                raise UsageError(
                    f"{fields['gpus']} need a time: add --days 30, and they are the budget, or --flops 1e22"
                )
            what = {"flops": "a compute budget", "memory": "a memory limit"}[name]
            raise UsageError(f"{what} is missing; add {example}, as in: moeplan recommend --flops 1e22 --memory 80GB")
    return Budget(**fields)


def serving_of(fields: Mapping[str, Any]) -> InferenceSettings:
    """How the model is served, by the fields of a budget."""
    return InferenceSettings(**{name: fields[name] for name in SERVING if name in fields})
