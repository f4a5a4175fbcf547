"""The conditions of a plan by their names on the command line: read from text, taken from a plan, made a `Budget`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from moeplan.budget import Budget
from moeplan.errors import UsageError
from moeplan.memory import InferenceSettings
from moeplan.plan import Request
from moeplan.units import parse_count

SERVING = ("weight_dtype", "kv_dtype", "context", "concurrency")
"""Conditions that say how the model is served."""


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
        low, dots, high = bounds.partition("..")
        if not name or not equals or not dots:
            raise UsageError(f"--range {text!r} is not NAME=LO..HI; write it like granularity=4..8 or tokens=1T..2T")
        if name in ranges:
            raise UsageError(f"{name} is bounded twice; give one range")
        ranges[name] = (_number(low, f"--range {name}"), _number(high, f"--range {name}"))
    return ranges


def _number(text: str, what: str) -> float:
    try:
        if float(text) == 0:  # no count, but a variable (num_shared_experts) may be 0
            return 0.0
    except ValueError:
        pass
    return parse_count(text, what)


def request_conditions(request: Request) -> dict[str, Any]:
    """The conditions of a plan's request; `make_budget` turns them into the same budget again."""
    names = (
        "flops memory vocab_size tied_embeddings seq_len attention headroom fix ranges max_epochs max_tokens "
        "inference_tokens days mfu price_per_gpu_hour memory_for optimizer"
    )
    conditions: dict[str, Any] = {name: getattr(request, name) for name in (*names.split(), *SERVING)}
    conditions |= {name: getattr(request, name) for name in ("gpus",) if getattr(request, name)}
    if conditions["memory"] is None:
        del conditions["memory"]
    if request.days:  # the days make the budget again
        conditions["flops"] = 0.0
    conditions["tokens_available"] = math.inf if request.tokens_available is None else request.tokens_available
    for name, bounds in request.ranges.items():
        if len(bounds) != 2:
            raise UsageError(f"request.ranges.{name} must be a list of two numbers, not {len(bounds)}")
    return conditions


def override(conditions: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`conditions` with those `given` instead; of `fix` and `ranges` only the variables named are replaced."""
    result = {**conditions, **given}
    if "flops" in given:  # one of the two makes the budget: the one given
        result["days"] = 0.0
    elif "days" in given:
        result["flops"] = 0.0
    fix, ranges = given.get("fix", {}), given.get("ranges", {})
    for key, own in (("fix", fix), ("ranges", ranges)):
        kept = {name: value for name, value in conditions.get(key, {}).items() if name not in {**fix, **ranges}}
        result[key] = {**kept, **own}
    return result


def make_budget(conditions: Mapping[str, Any]) -> Budget:
    """A `Budget` of conditions by name, defaults for what is absent; raises `UsageError` for values that cannot be."""
    absent = {
        "flops": not conditions.get("days"),
        "memory": "inference" in conditions.get("memory_for", ("inference",)),
    }
    for name, example in (("flops", "--flops 1e22"), ("memory", "--memory 80GB")):
        if name not in conditions and absent[name]:
            what = {"flops": "a compute budget", "memory": "a memory limit"}[name]
            raise UsageError(f"{what} is missing; add {example}, as in: moeplan recommend --flops 1e22 --memory 80GB")
    serving = InferenceSettings(**{name: conditions[name] for name in SERVING if name in conditions})
    return Budget(**{name: value for name, value in conditions.items() if name not in SERVING}, serving=serving)
