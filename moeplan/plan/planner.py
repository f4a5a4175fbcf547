"""From a budget to a plan: `recommend(Budget("1e22", "80GB"))`."""

from __future__ import annotations

from collections.abc import Callable

from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.assembly import assemble
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice, choose_design, make_space
from moeplan.plan.document import Plan
from moeplan.plan.law_selection import Laws, LawSelection, select_laws
from moeplan.plan.near_equal import RULES
from moeplan.plan.search.variables import DESIGN_VARIABLES


def between_steps_may_help(budget: Budget) -> bool:
    """Whether a grid with halved steps may meet conditions that the declared one cannot: those on real variables."""
    return not all(DESIGN_VARIABLES[name].integer for name in (*budget.fix, *budget.ranges))


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Raise `UsageError` unless an argument is a whole number from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{name} {value!r} must be a whole number from {low} to {high}")


def recommend(
    budget: Budget,
    *,
    laws: Laws = None,
    alternatives: int = 5,
    choose: str = "best",
    threads: int = 1,
    command: str = "",
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """The best Mixture-of-Experts model for a budget, exactly, on the declared grid.

    Maximises V(x) = (weighted) geometric mean over `laws` of C_l(x) [FLOPs]; see `moeplan.plan.search.space` and
    `moeplan.plan.search.reference`.

    Parameters
    ----------
    budget : Budget
        Compute [FLOPs], memory [bytes] and every condition on the design.
    laws : sequence of str or Path, or mapping of these to weights, optional
        Names ("zhao2025", "krajewski2024/moe-e16") or files of the laws to maximise; default `OBJECTIVE_LAWS`, of equal
        weight. {"zhao2025": 0.5} or ["zhao2025=0.5"] sets a weight; see `moeplan.plan.law_selection.select_laws`.
    alternatives : int
        How many markedly different designs to list besides.
    choose : str
        Which design the plan is of: "best", the largest V; "lean", the fewest active params within 5 % of it; "rich",
        the most; "robust", the least loss by the law that loses most. See `moeplan.plan.near_equal`.
    threads : int
        Threads to search with; the answer does not depend on it.
    command : str
        The command line, recorded in the plan.
    progress : callable, optional
        Called with a few words before each step.

    Raises
    ------
    InfeasibleError
        If no design meets the conditions; the message names the nearest that would.
    UsageError
        For unknown or broken laws, or arguments that cannot be.
    """
    return planned(
        budget,
        laws=laws,
        alternatives=alternatives,
        choose=choose,
        threads=threads,
        command=command,
        progress=progress,
    )[0]


def planned(
    budget: Budget,
    *,
    laws: Laws = None,
    alternatives: int = 5,
    choose: str = "best",
    threads: int = 1,
    command: str = "",
    progress: Callable[[str], None] | None = None,
) -> tuple[Plan, Choice]:
    """What `recommend` returns, and the search that it came from."""
    check_whole("alternatives", alternatives, 0, 100)
    if choose not in RULES:
        raise UsageError(f"choose {choose!r} must be one of {', '.join(RULES)}")
    selected = select_laws(laws)
    say = progress or (lambda _: None)
    choice = search(budget, selected, threads=threads, say=say)
    say("writing the plan")
    plan = assemble(choice, selected, num_alternatives=alternatives, choose=choose, command=command)
    # Through its own file format, so that a plan equals what is read back from its file.
    return Plan.from_json(plan.to_json()), choice


def search(budget: Budget, laws: LawSelection, *, threads: int = 1, say: Callable[[str], None]) -> Choice:
    """The best design for a budget by the objective laws; raises as `recommend` does."""
    check_whole("threads", threads, 1, 1024)
    if not isinstance(budget, Budget):
        raise UsageError(f"budget {budget!r} must be a Budget, for example Budget('1e22', '80GB')")
    say("building the grid")
    try:
        return choose_design(make_space(budget, laws.searching, threads=threads), laws.objective)
    except InfeasibleError:
        if not between_steps_may_help(budget):
            raise
        say("searching between the grid's steps")
        finer = budget.declared_grid(budget.reference_grid().halved())
        return choose_design(make_space(budget, laws.searching, base=finer, threads=threads), laws.objective)
