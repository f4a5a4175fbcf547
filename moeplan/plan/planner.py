"""From a budget to a plan: `recommend(Budget("1e22", "80GB"))`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from moeplan.errors import InfeasibleError, UsageError
from moeplan.laws import Law, load_law
from moeplan.laws.roles import LEVERAGE_LAW, OBJECTIVE_LAWS, SECOND_OPINIONS
from moeplan.plan.answer import Answer
from moeplan.plan.budget import Budget
from moeplan.plan.document import Plan
from moeplan.plan.search.space import Space
from moeplan.plan.search.variables import DESIGN_VARIABLES

if TYPE_CHECKING:
    from moeplan.plan.uncertainty.drawn import DrawnLaw


@dataclass(frozen=True)
class Panel:
    """The laws that a plan asks."""

    chosen: tuple[Law, ...]
    """Those whose geometric mean is maximised."""
    opinions: tuple[Law, ...]
    """Those that are heard besides."""

    @property
    def judges(self) -> tuple[Law, ...]:
        """Those that can search, the chosen ones first."""
        return (*self.chosen, *(law for law in self.opinions if law.can_search))

    @cached_property
    def drawn(self) -> dict[str, DrawnLaw]:
        """The chosen laws whose files say how far off their coefficients may be, with draws of these."""
        if not any(law.objective and law.objective.covariance for law in self.chosen):
            return {}
        from moeplan.plan.uncertainty.drawn import draw

        found = {law.full_name: draw(law) for law in self.chosen}
        return {name: drawn for name, drawn in found.items() if drawn is not None}


def read_panel(laws: Sequence[str | Path] | None) -> Panel:
    """The laws by name or file, by default `OBJECTIVE_LAWS`, and the second opinions; raises `UsageError` for none."""
    if isinstance(laws, (str, Path)):
        laws = [laws]
    chosen = tuple(load_law(name) for name in (laws if laws is not None else OBJECTIVE_LAWS))
    if not chosen:
        raise UsageError(f"no law is chosen; name at least one, for example {LEVERAGE_LAW}")
    if len({(law.path, law.objective.name if law.objective else "") for law in chosen}) < len(chosen):
        raise UsageError("a law is named twice; name each once")
    others = (LEVERAGE_LAW, *SECOND_OPINIONS)
    return Panel(chosen, tuple(load_law(name) for name in others if name not in {law.name for law in chosen}))


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
    laws: Sequence[str | Path] | None = None,
    alternatives: int = 5,
    threads: int = 2,
    command: str = "",
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """The best Mixture-of-Experts model for a budget, exactly, on the declared grid.

    Maximises V(x) = geometric mean over `laws` of C_l(x) [FLOPs]; see `moeplan.plan.search.space` and
    `moeplan.plan.search.reference`.

    Parameters
    ----------
    budget : Budget
        Compute [FLOPs], memory [bytes] and every condition on the design.
    laws : sequence of str or Path, optional
        Names ("zhao2025", "krajewski2024/moe-e16") or files of the laws to maximise; default `OBJECTIVE_LAWS`.
    alternatives : int
        How many markedly different designs to list besides.
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
    check_whole("alternatives", alternatives, 0, 100)
    panel = read_panel(laws)
    say = progress or (lambda _: None)
    answer = search(budget, panel, alternatives=alternatives, threads=threads, say=say)
    say("writing the plan")
    # Through its own file format, so that a plan equals what is read back from its file.
    return Plan.from_json(answer.plan(panel.chosen, panel.opinions, command).to_json())


def search(
    budget: Budget, panel: Panel, *, alternatives: int = 0, threads: int = 2, say: Callable[[str], None]
) -> Answer:
    """The best design for a budget by a panel, and what can be asked of it; raises as `recommend` does."""
    check_whole("threads", threads, 1, 1024)
    if not isinstance(budget, Budget):
        raise UsageError(f"budget {budget!r} must be a Budget, for example Budget('1e22', '80GB')")
    say("building the grid")
    try:
        return Answer(Space(budget, panel.judges, threads=threads), budget, len(panel.chosen), alternatives)
    except InfeasibleError:
        if not between_steps_may_help(budget):
            raise
        say("searching between the grid's steps")
        space = Space(budget, panel.judges, base=budget.reference_grid().halved(), threads=threads)
        return Answer(space, budget, len(panel.chosen), alternatives)
