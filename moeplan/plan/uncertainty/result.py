"""How far a fitted law leaves its own answer open: `PlanUncertainty`, a part of plans, frozen and typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from moeplan.estimates import Estimate
from moeplan.quantities import BY_VARIABLE, LOSS, SHARE
from moeplan.records import Line, Word


@dataclass(frozen=True)
class VariableUncertainty:
    """Where the best value of one design variable lies, the optimum found anew for every draw."""

    variable: Word
    """The design variable."""
    value: Annotated[float, BY_VARIABLE]
    """Its value in the plan."""
    low: Annotated[float, BY_VARIABLE]
    """Lower end of the interval."""
    median: Annotated[float, BY_VARIABLE]
    """The middle draw's."""
    high: Annotated[float, BY_VARIABLE]
    """Upper end of the interval."""


@dataclass(frozen=True)
class LawUncertainty:
    """Loss and leverage of the plan's own design by one law with draws."""

    law: Line
    """The law."""
    loss: Estimate | None
    """Loss by the law [nats/token], with the interval from the coefficients alone; null for laws of leverage."""
    run_low: Annotated[float | None, LOSS]
    """Lower end for the loss that one run would measure: the runs' own scatter about the law added; null without."""
    run_high: Annotated[float | None, LOSS]
    """Upper end for the loss that one run would measure."""
    efficiency_leverage: float | None
    """EL by the law; null if it has no dense counterpart."""
    leverage_low: float | None
    """Lower end of its interval, from the coefficients alone."""
    leverage_high: float | None
    """Upper end of its interval, from the coefficients alone."""
    basis: Line
    """Where the draws come from."""
    sees: tuple[Line, ...]
    """The variables of its equation; no other makes a difference to it."""
    inside: bool | None
    """Whether the plan lies inside the range that the law was measured on; null if the law file gives none."""


@dataclass(frozen=True)
class PlanUncertainty:
    """Intervals of a plan from what the chosen laws' runs leave open of their coefficients."""

    level: Annotated[float, SHARE]
    """Probability that the intervals are meant to cover, if the law's equation is right."""
    draws: int
    """Draws of the coefficients."""
    unusable: int
    """Draws left out because the law gives no finite number for the plan."""
    held: tuple[Line, ...]
    """Chosen laws that stay at their own coefficients, since their files give no covariance."""
    variables: tuple[VariableUncertainty, ...]
    """The best design's variables over the draws, under the same limits."""
    laws: tuple[LawUncertainty, ...]
    """The laws with draws."""
    same_design: Annotated[float, SHARE]
    """Share of the draws in which the plan's own design is the best, or ties with it."""
    efficiency_median: Annotated[float, SHARE]
    """V of the plan / the best V of a draw: the middle draw's."""
    efficiency_low: Annotated[float, SHARE]
    """The same, reached or passed in the share `level` of the draws."""
    covers: Line
    """Sources of error that the intervals cover and those that they leave out, in words."""
