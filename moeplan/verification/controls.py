"""Comparisons whose answer is known beforehand: if one comes out otherwise, the leverage is not to be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moeplan.verification import estimate
from moeplan.verification.groups import group_runs
from moeplan.verification.spec import RunResult
from moeplan.verification.verification import ControlResult

CHECKS = {
    "one_expert": "a MoE of one expert is the dense model: its leverage is 1",
    "second_seed": "the dense model with other seeds is the dense model: its leverage is 1",
    "frozen_router": "experts in turn, whatever the token, are worse than those the router chooses: loss ratio above 1",
}
"""The two sides of each control."""


def control_results(results: Sequence[RunResult]) -> tuple[ControlResult, ...]:
    """The controls among finished runs; those whose runs are missing or diverged are left out."""
    dense = group_runs(results, "dense")
    found = []
    for control, arm in (("one_expert", "moe"), ("second_seed", "dense")):
        groups = group_runs(results, arm, control)
        for measured in estimate.measure(groups, dense):
            expected = measured.low <= 1 <= measured.high
            values = measured.efficiency_leverage, measured.low, measured.high
            verdict = "as expected" if expected else "not as expected"
            found.append(ControlResult(control, CHECKS[control], *values, verdict))
    frozen = group_runs(results, "moe", "frozen_router")
    trained = {group.rung: group for group in group_runs(results, "moe")}
    pairs = [(group, trained[group.rung]) for group in frozen if group.rung in trained]
    if pairs:
        worse = estimate.loss_difference([a for a, _ in pairs], [b for _, b in pairs])
        value, low, high = (math.exp(x) for x in worse)
        verdict = "as expected" if low > 1 else "not as expected" if high < 1 else "not resolved"
        found.append(ControlResult("frozen_router", CHECKS["frozen_router"], value, low, high, verdict))
    return tuple(found)
