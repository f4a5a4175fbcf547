"""Another design of a plan's search as a plan of its own: one of its alternatives, or any that is fixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from moeplan.architecture.shape import Architecture
from moeplan.errors import MoeplanError, UsageError
from moeplan.plan.budget_fields import make_budget
from moeplan.plan.document import Plan
from moeplan.plan.law_selection import laws_again
from moeplan.plan.planner import recommend
from moeplan.plan.repeat import override, request_fields
from moeplan.plan.search.variables import DESIGN_VARIABLES, Design

Say = Callable[[str], None]


def candidate(plan: Plan, fix: Mapping[str, float], *, threads: int = 1, progress: Say | None = None) -> Plan:
    """The best design of the plan's request with variables fixed besides: `{"num_experts": 64, "d_model": 2048}`.

    Raises what `recommend` raises: `InfeasibleError` where no design has these values.
    """
    budget = make_budget(override(request_fields(plan.request), {"fix": dict(fix)}))
    laws = laws_again(plan.request.laws, plan.request.weights, ())
    return recommend(budget, laws=laws, alternatives=0, threads=threads, progress=progress)


def alternative(plan: Plan, number: int, *, threads: int = 1, progress: Say | None = None) -> Plan:
    """The plan of the `number`-th of the alternatives that a plan lists, from 1."""
    listed = plan.alternatives
    if not 1 <= number <= len(listed):
        known = f"1 to {len(listed)}" if listed else "none; make it again with --alternatives 5"
        raise UsageError(f"the plan has no alternative {number}; it lists {known}")
    wanted = listed[number - 1]
    found = candidate(plan, integers_of(wanted), threads=threads, progress=progress)
    if found.design.total_params != wanted.total_params:
        raise UsageError(
            f"alternative {number} has {wanted.total_params:,} params in the plan, and {found.design.total_params:,} "
            "when planned again; make the plan anew with this version"
        )
    return found


def integers_of(design: Design) -> dict[str, float]:
    """The variables that settle a design's shape: its whole numbers."""
    counts = ("total_params", "active_params", "tokens", "G")
    return {
        name: float(getattr(design, name))
        for name, variable in DESIGN_VARIABLES.items()
        if variable.integer and name not in counts
    }


def architecture_of(plan: Plan, design: Design) -> Architecture | None:
    """The exact shape of a design of a plan's search; None where this version's grid has no such design."""
    fields = request_fields(plan.request) | {"fix": integers_of(design), "ranges": {}, "multiple_of": {}}
    try:
        budget = make_budget(fields)
        table = budget.grid(budget.reference_grid()).product(design.d_model)
    except MoeplanError:
        return None
    for at in range(0 if table is None else len(table)):
        found = table.take(np.array([at])).architecture(0)  # type: ignore[union-attr]
        if (found.total_params(), found.active_params()) == (design.total_params, design.active_params):
            return found
    return None
