"""Curves of recommendations: along what a budget is asked for (`RANGES`), or over one design variable at a budget.

`frontier(Budget("1e22", "80GB"), memory="24GB..640GB")`. Every point of a curve along memory, compute, GPUs, days or
served sequences is what `recommend` answers there. Over a design variable, everything else is re-optimised at each of
its values, by V and by each law alone; a law's line is C_l of its own best design there in units of its best on the
whole curve, so that no two laws' losses meet.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from moeplan.errors import UsageError
from moeplan.plan.budget import Budget
from moeplan.plan.budget_fields import make_budget
from moeplan.plan.law_selection import Laws, select_laws
from moeplan.plan.planner import check_whole
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.studies.frontier.along import along
from moeplan.studies.frontier.curves import Frontier
from moeplan.studies.frontier.over_variable import over_variable
from moeplan.studies.frontier.ranges import RANGES, read_values
from moeplan.units import MemoryLimit

MOST_POINTS = 400
"""Most points of a curve."""


def frontier(
    budget: Budget | str | float | None = None,
    memory: str | MemoryLimit | None = None,
    *,
    flops: str | float | None = None,
    over: str | None = None,
    points: int = 40,
    laws: Laws = None,
    threads: int = 1,
    command: str = "",
    progress: Callable[[str], None] | None = None,
    **fields: Any,
) -> Frontier:
    """Recommendations along a range of memory, compute, GPUs, days or concurrency, or over one design variable.

    Parameters
    ----------
    budget : Budget, or str or float, optional
        The budget, of which what else is given takes the place; or its compute alone, as `flops`.
    flops, memory : str or float, optional
        Compute [FLOPs] and memory limit [bytes]. One of these, or of `gpus`, `days` and `concurrency`, is a range,
        "24GB..640GB", "1e20..1e25", "64xH100..1024xH100", "7..90" or "1..64", both ends included. None is one with a
        design variable in `over`.
    over : str, optional
        A design variable: active_param_ratio (total_params held at the recommendation's unless fixed or bounded),
        granularity, tokens, ...; or again the name of what is given as a range.
    points : int
        How many points, evenly spaced in the logarithm.
    laws, threads, command, progress
        As `moeplan.plan.planner.recommend` takes them.
    **fields
        The other fields of `moeplan.plan.budget.Budget` and of `InferenceSettings`, by name.

    Raises
    ------
    UsageError
        For no range, two, or one that cannot be.
    InfeasibleError
        If no design meets the conditions at any point.
    """
    check_whole("points", points, 2, MOST_POINTS)
    check_whole("threads", threads, 1, 1024)
    say = progress or (lambda _: None)
    selected = select_laws(laws)
    given: dict[str, Any] = dict(budget.words) if isinstance(budget, Budget) else {"flops": budget}
    given.update(
        (n, value) for n, value in (*fields.items(), ("flops", flops), ("memory", memory)) if value is not None
    )
    given = {name: value for name, value in given.items() if value is not None}
    if over in RANGES and ".." in str(given.get(over)):  # said twice
        over = None
    if over is not None:
        ranged = next((name for name in RANGES if ".." in str(given.get(name))), None)
        if ranged:
            raise UsageError(
                f"a curve over {over} is drawn at one budget; give --{ranged} as a number, not as {given[ranged]}"
            )
        _check_variable(over)
        return over_variable(over, points, make_budget(given), selected, threads, say, command)
    read = {name: read_values(name, given[name], points) for name in RANGES if name in given}
    several = [name for name, values in read.items() if len(values) > 1]
    if len(several) > 1:
        both = " and ".join(several)
        raise UsageError(f"{both} are both ranges; give one as a range and one as a number")
    if not several:
        budget_range = "days" if "days" in given else "flops"
        raise UsageError(
            f"nothing to draw a curve over; give a range, --memory {RANGES['memory']} or --{budget_range} "
            f"{RANGES[budget_range]}, or a design variable, --over granularity"
        )
    (name,) = several
    budgets = [make_budget({**given, name: value}) for value in read[name]]
    return along(name, budgets, read[name], selected, threads, say, command)


def _check_variable(over: str) -> None:
    if over in RANGES:
        raise UsageError(f"a curve over {over} is asked for by a range, --{over} {RANGES[over]}")
    if over not in DESIGN_VARIABLES:
        near = difflib.get_close_matches(over, DESIGN_VARIABLES, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(DESIGN_VARIABLES)}"
        raise UsageError(f"unknown design variable {over!r}; {hint}")
