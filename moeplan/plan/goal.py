"""The target that a budget was found for, where it was not given: part of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from moeplan.quantities import COUNT, SHARE
from moeplan.records import Line


@dataclass(frozen=True)
class DenseGoal:
    """The dense model that the plan was to equal."""

    asked: Line
    """Params, as in 70B, or the name or file of a model."""
    total_params: int
    """N of its exact shape [params], embeddings included."""
    tokens: float
    """D, its training tokens."""
    train_flops: float
    """Its compute in the leverage law's FLOPs."""
    allocation_efficiency: float
    """phi: what is left of its compute because it is not split into size and tokens as the leverage law finds best."""
    memory: Line
    """Memory that it needs to be served as the plan is, headroom included."""
    work_by_law: dict[Line, float]
    """The plan's work / the dense model's by other laws: compute of their own best dense models of equal losses."""


@dataclass(frozen=True)
class GoalPoint:
    """The recommendation at a budget near the one found."""

    budget: float
    """FLOPs, days, or bytes of one device."""
    total_params: int
    """N [params]."""
    active_params: int
    """N_a [params]."""
    tokens: int
    """D, training tokens."""
    efficiency_leverage: float
    """EL by the leverage law."""
    reached: Annotated[float, SHARE]
    """The target itself, in its unit."""


@dataclass(frozen=True)
class Goal:
    """The smallest budget, in steps of 1 % rounded to three digits, whose recommendation reaches a target."""

    finds: Line
    """flops, days or memory: which limit was found."""
    target_efficiency_leverage: float | None
    """EL by the leverage law that was asked for; null if a dense model was to be equalled."""
    dense: DenseGoal | None
    """The dense model that was to be equalled, by the leverage law; null if EL was asked for."""
    found: float
    """The limit found: FLOPs, days, or bytes of one device."""
    interval_factor: float
    """The 90 % interval of EL at the plan: EL divided and multiplied by this."""
    low: float
    """The limit that would do if EL were larger than predicted by that factor."""
    high: float | None
    """The limit that it would take if EL were smaller by that factor; null if none that was searched would."""
    given: tuple[Line, ...]
    """Which of vocab_size and tied_embeddings were given; the others follow from the compute."""
    least: float
    """The smallest limit that was searched."""
    most: float
    """The largest limit that was searched."""
    also_above: Annotated[float, SHARE]
    """Share of the limits up to 25 % larger whose recommendations reach the target too."""
    neighbours: tuple[GoalPoint, ...]
    """Recommendations at a tenth to ten times the limit found."""
    gpu_hours: Annotated[float | None, COUNT] = None
    """Hours of training, and of what is served at its price in training's; null where the budget is not in hours."""
    money: float | None = None
    """Their price; null without one."""
