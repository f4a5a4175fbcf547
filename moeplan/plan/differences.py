"""Differences between a plan and the plan that was made from it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from moeplan.plan.document import Plan
from moeplan.plan.search.variables import DESIGN_VARIABLES


@dataclass(frozen=True)
class Change:
    """One thing that is different."""

    name: str
    """Where it stands in the plan, as in design.tokens."""
    before: Any
    """Its value in the old plan; None where it had none."""
    after: Any
    """Its value in the new plan; None where it has none."""


def plan_changes(before: Plan, after: Plan) -> tuple[Change, ...]:
    """Changes of request, design, shape, leverage and worth, laws, grid and version: each value before and after.

    Numbers count as changed beyond the 10 digits that a plan file keeps.
    """
    old, new = _facts(before), _facts(after)
    return tuple(
        Change(name, old.get(name), new.get(name)) for name in {**new, **old} if _differs(old.get(name), new.get(name))
    )


def _facts(plan: Plan) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for field in dataclasses.fields(plan.request):
        value = getattr(plan.request, field.name)
        if isinstance(value, dict):
            facts |= {f"request.{field.name}.{name}": item for name, item in value.items()}
        else:
            facts[f"request.{field.name}"] = value
    facts |= {f"design.{name}": getattr(plan.design, name) for name in DESIGN_VARIABLES}
    for name in ("num_kv_heads", "head_dim", "d_ff", "num_dense_layers"):
        facts[f"architecture.{name}"] = getattr(plan.architecture, name)
    leverage, pooled = plan.leverage, plan.leverage.pooled
    facts["leverage.pooled.efficiency_leverage"] = pooled.efficiency_leverage
    facts["leverage.pooled.low"], facts["leverage.pooled.high"] = pooled.low, pooled.high
    facts["leverage.efficiency_leverage"] = leverage.efficiency_leverage
    facts["leverage.low"], facts["leverage.high"] = leverage.low, leverage.high
    facts["leverage.dense.total_params"] = leverage.dense.total_params
    facts["value"], facts["value_ratio"] = plan.design.value, plan.value_ratio
    facts["memory.total_bytes"], facts["binding"] = plan.memory.total_bytes, plan.binding
    facts |= {f"laws.{name}": digest for name, digest in plan.provenance.law_digests.items()}
    facts["grid"], facts["version"] = plan.provenance.grid_digest, plan.provenance.version
    return facts


def _differs(old: Any, new: Any) -> bool:
    if isinstance(old, float) and isinstance(new, (int, float)):
        return not math.isclose(old, new, rel_tol=1e-9)
    return bool(old != new)
