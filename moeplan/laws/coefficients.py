"""The coefficients of an equation: bounds, sign, and the coordinate in which it is fitted.

A form says so by the annotations of its signature, and nothing else does: `E: Level`, `alpha: Exponent`. A positive
amplitude is fitted as its logarithm; exponents, levels and signed coefficients as they are. Bounds say what the
equation means (a loss falls with size, a level is not negative); start ranges say where published values lie, with
room to spare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Coordinate:
    """How one coefficient is fitted."""

    kind: Literal["ln", "linear"]
    """Whether its logarithm is fitted, or it itself."""
    low: float
    """Least value of the coefficient."""
    high: float
    """Largest value."""
    start: tuple[float, float]
    """Range in which starts are sought, for a coefficient that is not affine."""
    role: Literal["level", "amplitude", "exponent", "signed"]
    """Its kind: an irreducible level, a term's size, an exponent of known sign, or a number of either sign."""
    affine: bool = False
    """Whether the prediction (or its logarithm, as `Prediction` says) is affine in it, for given others that are not.

    Starts are sought over the other coefficients alone; these are solved for exactly.
    """

    def inward(self, value: float) -> float:
        """The coordinate of a coefficient's value."""
        return math.log(value) if self.kind == "ln" else value


@dataclass(frozen=True)
class Prediction:
    """The quantity that an equation gives: the annotation of its result."""

    predicts: str
    """The quantity predicted unless told otherwise, one of `moeplan.laws.law.PREDICTS`."""
    log: bool = False
    """Whether its logarithm is affine in the affine coefficients, rather than it itself."""


def signed(limit: float, start: float, *, affine: bool = False) -> Coordinate:
    """A number of either sign, at most `limit` in size, at most `start` where starts are sought."""
    return Coordinate("linear", -limit, limit, (-start, start), "signed", affine)


def positive(low: float, high: float, start: tuple[float, float]) -> Coordinate:
    """A positive number, fitted as its logarithm, in which the prediction is not affine."""
    return Coordinate("ln", low, high, start, "amplitude")


def power(low: float, high: float, start: tuple[float, float]) -> Coordinate:
    """An exponent with bounds of its own."""
    return Coordinate("linear", low, high, start, "exponent")


Level = Annotated[float, Coordinate("linear", 0.0, math.inf, (0.0, 1.0), "level", affine=True)]
"""An irreducible level."""
Amplitude = Annotated[float, Coordinate("ln", 1e-30, 1e30, (1e-2, 1e2), "amplitude", affine=True)]
"""The size of a term."""
Exponent = Annotated[float, power(0.0, 3.0, (0.05, 0.7))]
"""An exponent written with a minus sign in the equation."""
NegativeExponent = Annotated[float, power(-3.0, 0.0, (-0.7, -0.05))]
"""An exponent of a falling power, written as it is."""
StartExpansion = Annotated[float, positive(0.2, 20.0, (1.0, 6.0))]
"""Es: Ehat of a dense model. Published: 1.7 to 4.3. Below Em by its bounds."""
LargestExpansion = Annotated[float, positive(25.0, 1e6, (80.0, 2000.0))]
"""Em: where more experts stop helping. Published: 239 to 478."""

# Results, float or array as the variables are.
Loss = Annotated[Any, Prediction("loss")]
LogLoss = Annotated[Any, Prediction("loss", log=True)]
"""A loss whose logarithm is affine in the affine coefficients."""
LogLeverage = Annotated[Any, Prediction("efficiency_leverage", log=True)]
AllocationEfficiency = Annotated[Any, Prediction("allocation_efficiency")]
LogLearningRate = Annotated[Any, Prediction("learning_rate", log=True)]
FlopsPerToken = Annotated[Any, Prediction("flops_per_token")]
EffectiveTokens = Annotated[Any, Prediction("effective_tokens")]
DecayFraction = Annotated[Any, Prediction("decay_fraction")]
