"""Companions of the forms: helpers they share, and what a form becomes when some of its variables are fixed.

A function `reduced_<form>` takes the variables held fixed and the form's own coefficients, and returns the coefficients
of the simpler equation that is left, by the paper's letters. Papers print these too, so checks can ask for them
(`find: reduced`). They are no forms themselves: a law file cannot name them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Value = Any


def saturated_expansion(expansion_ratio: Value, Es: float, Em: float) -> Value:
    """Ehat: 1/Ehat = 1/(E - 1 + 1/(1/Es - 1/Em)) + 1/Em; Es at E = 1, at most Em (Clark et al. 2022, Eq. 8)."""
    return 1 / (1 / (expansion_ratio - 1 + 1 / (1 / Es - 1 / Em)) + 1 / Em)


def reduced_expansion_joint(
    expansion_ratio: Value,
    /,
    *,
    a: float,
    alpha: float,
    delta: float,
    gamma: float,
    b: float,
    beta: float,
    omega: float,
    zeta: float,
    Es: float,
    Em: float,
    c: float,
) -> dict[str, Value]:
    """L = m*Na^mu + n*D^nu + c at one expansion ratio (Ludziejewski et al. 2025, arXiv 2502.05172, Table 4)."""
    ln_expansion = np.log(saturated_expansion(expansion_ratio, Es, Em))
    return {
        "m": a * np.exp(delta * ln_expansion),
        "mu": alpha + gamma * ln_expansion,
        "n": b * np.exp(omega * ln_expansion),
        "nu": beta + zeta * ln_expansion,
        "c": c,
    }
