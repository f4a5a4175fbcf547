"""A plan asked again under other terms: which fields of its budget stay, which are replaced, which follow compute."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from moeplan.errors import UsageError
from moeplan.plan.budget import defaults_by_compute
from moeplan.plan.budget_fields import DEMAND, SERVING
from moeplan.plan.document import Plan, Request

_BY_COMPUTE = {"vocab_size": ("--vocab-size",), "tied_embeddings": ("--tied", "--untied")}
"""Fields whose default follows from compute, with the flags that give them."""


def request_fields(request: Request) -> dict[str, Any]:
    """The fields of the budget that a plan was asked for; `make_budget` turns them into the same budget again."""
    names = (
        "flops memory vocab_size tied_embeddings seq_len attention latent headroom fix ranges max_epochs max_tokens "
        "inference_tokens days mfu price_per_gpu_hour memory_for optimizer hyperparameters "
        "goodput optimise train_precision software layout batch multiple_of measured"
    )
    fields: dict[str, Any] = {name: getattr(request, name) for name in (*names.split(), *SERVING, *DEMAND)}
    fields |= {name: getattr(request, name) for name in ("gpus",) if getattr(request, name)}
    if fields["memory"] is None:
        del fields["memory"]
    if request.days:  # the days make the budget again
        fields["flops"] = 0.0
    else:
        del fields["optimise"]
    fields["tokens_available"] = math.inf if request.tokens_available is None else request.tokens_available
    for name, bounds in request.ranges.items():
        if len(bounds) != 2:
            raise UsageError(f"request.ranges.{name} must be a list of two numbers, not {len(bounds)}")
    return fields


def override(fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with those `given` instead; of `fix` and `ranges` only the variables named are replaced."""
    result = {**fields, **given}
    if "flops" in given:  # one of the two makes the budget: the one given
        result["days"] = 0.0
        result.pop("optimise", None)
    elif "days" in given:
        result["flops"] = 0.0
        result.pop("optimise", None)
    result |= {"optimise": given["optimise"]} if "optimise" in given else {}
    fix, ranges = given.get("fix", {}), given.get("ranges", {})
    for key, own in (("fix", fix), ("ranges", ranges)):
        kept = {name: value for name, value in fields.get(key, {}).items() if name not in {**fix, **ranges}}
        result[key] = {**kept, **own}
    return result


def _at_default(plan: Plan) -> list[str]:
    """Fields of a plan's budget whose value is the one that its compute chooses."""
    chosen = defaults_by_compute(plan.request.flops)
    return [name for name in _BY_COMPUTE if getattr(plan.request, name) == chosen[name]]


def _flags(plan: Plan) -> set[str] | None:
    """The flags of the command that made a plan; None where it repeats a plan, reads a request, or was no command."""
    words = {word.partition("=")[0] for word in plan.provenance.command.split()}
    return words if {"moeplan", "recommend"} <= words and not words & {"--from", "--request"} else None


def left_to_compute(plan: Plan) -> list[str]:
    """Fields that a plan's compute chose: its command gave none, so that they follow from compute again."""
    flags = _flags(plan)
    return [] if flags is None else [name for name in _at_default(plan) if not flags & {*_BY_COMPUTE[name]}]


def kept_notes(before: Plan, after: Plan, given: Iterable[str]) -> list[str]:
    """Name the values that a repeated plan keeps although its compute would choose others, if that may not be meant.

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
    """The target (for `moeplan.plan.inverse.recommend_for`; empty if there is none) and the budget's fields of a
    repeated plan.

    `target` and `given` are what is asked now. A plan whose budget was found is searched for again, unless the limit
    that was found is given now. With a new target the limit that is not given now is found: compute, if neither is.
    """
    inherited = request_fields(before.request)
    for name in left_to_compute(before):
        del inherited[name]
    fields = override(inherited, given)
    named = {"flops" if name == "days" else name for name in ("flops", "days", "memory") if name in given}
    goal, wanted = before.goal, dict(target)
    found = "" if goal is None else "memory" if goal.finds == "memory" else "flops"  # days are a compute, too
    finds = next((name for name in ("flops", "memory") if len(named) == 1 and name not in named), "flops")
    if goal is not None and not named:
        finds = found
    if not wanted and goal is not None and found not in named:
        finds = found
        if goal.dense is None:
            wanted = {"target_el": goal.target_efficiency_leverage}
        else:
            wanted = {"match_dense": goal.dense.asked, "dense_tokens": goal.dense.tokens}
    if wanted and len(named) < 2:
        for name in ("flops", "days") if finds == "flops" else ("memory",):
            fields.pop(name, None)
        if goal is not None and goal.finds == "flops" and before.request.gpus:
            fields.setdefault("optimise", "flops")
        for name in ("vocab_size", "tied_embeddings"):  # they follow the compute that is found
            if goal is not None and finds == "flops" and name not in (*goal.given, *given):
                fields.pop(name, None)
    return wanted, fields
