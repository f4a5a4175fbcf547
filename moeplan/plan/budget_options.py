"""The conditions of a plan by their names on the command line: read from text, taken from a plan, made a `Budget`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from moeplan.cost.inference_memory import InferenceSettings
from moeplan.errors import UsageError
from moeplan.plan.budget import Budget, defaults_by_compute
from moeplan.plan.document import Plan, Request
from moeplan.units import parse_count, range_ends

SERVING = ("weight_dtype", "kv_dtype", "context", "concurrency")
"""Conditions that say how the model is served."""
_BY_COMPUTE = {"vocab_size": ("--vocab-size",), "tied_embeddings": ("--tied", "--untied")}
"""Conditions whose default follows from compute, with the flags that give them."""


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


def _at_default(plan: Plan) -> list[str]:
    """Conditions of a plan whose value is the one that its compute chooses."""
    chosen = defaults_by_compute(plan.request.flops)
    return [name for name in _BY_COMPUTE if getattr(plan.request, name) == chosen[name]]


def _flags(plan: Plan) -> set[str] | None:
    """The flags of the command that made a plan; None if it repeats another plan, or was no command."""
    words = {word.partition("=")[0] for word in plan.provenance.command.split()}
    return words if {"moeplan", "recommend"} <= words and "--from" not in words else None


def left_to_compute(plan: Plan) -> list[str]:
    """Conditions that a plan's compute chose: its command gave none, so that they follow from compute again."""
    flags = _flags(plan)
    return [] if flags is None else [name for name in _at_default(plan) if not flags & {*_BY_COMPUTE[name]}]


def kept_notes(before: Plan, after: Plan, given: Iterable[str]) -> list[str]:
    """What a repeated plan keeps although its compute would choose otherwise, where nobody can tell if that is meant.

    A plan that repeats another, or that no command made, does not say whether a value was given or chosen.
    """
    if _flags(before) is not None:
        return []
    chosen = defaults_by_compute(after.request.flops)
    notes = []
    for name in _at_default(before):
        value, default = getattr(after.request, name), chosen[name]
        if name not in given and value == getattr(before.request, name) != default:
            flag = f"--vocab-size {default}" if name == "vocab_size" else "--tied" if default else "--untied"
            notes.append(f"{name} stays at {value} as in the plan given; {flag} is the default at this compute")
    return notes


def repeated_target(
    before: Plan, target: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The target (for `moeplan.plan.inverse.recommend_for`; empty if there is none) and the conditions of a repeated
    plan.

    `target` and `given` are what is asked now. A plan whose budget was found is searched for again, unless the limit
    that was found is given now. With a new target the limit that is not given now is found: compute, if neither is.
    """
    inherited = request_conditions(before.request)
    for name in left_to_compute(before):
        del inherited[name]
    conditions = override(inherited, given)
    named = {"flops" if name == "days" else name for name in ("flops", "days", "memory") if name in given}
    goal, asked = before.goal, dict(target)
    finds = next((name for name in ("flops", "memory") if len(named) == 1 and name not in named), "flops")
    if goal is not None and not named:
        finds = goal.finds
    if not asked and goal is not None and goal.finds not in named:
        finds = goal.finds
        if goal.dense is None:
            asked = {"target_el": goal.target_efficiency_leverage}
        else:
            asked = {"match_dense": goal.dense.asked, "dense_tokens": goal.dense.tokens}
    if asked and len(named) < 2:
        for name in ("flops", "days") if finds == "flops" else ("memory",):
            conditions.pop(name, None)
        for name in ("vocab_size", "tied_embeddings"):  # they follow the compute that is found
            if goal is not None and finds == "flops" and name not in (*goal.given, *given):
                conditions.pop(name, None)
    return asked, conditions


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
    return Budget(
        **{name: value for name, value in conditions.items() if name not in SERVING}, serving=serving_of(conditions)
    )


def serving_of(conditions: Mapping[str, Any]) -> InferenceSettings:
    """How the model is served, of conditions by name."""
    return InferenceSettings(**{name: conditions[name] for name in SERVING if name in conditions})
