"""Known coefficients of every form and designs of runs that determine them, for tests of fitting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moeplan.fitting.problem import Problem, make_problem
from moeplan.laws import law_names, load_law
from moeplan.laws.signatures import FORMS, form_variables
from moeplan.numerics import Floats

RANGES: dict[str, tuple[float, float]] = {
    "total_params": (1e8, 3e10),
    "active_params": (5e7, 5e9),
    "nonzero_params": (1e6, 1e9),
    "base_params": (1e8, 1e10),
    "tokens": (2e9, 3e11),
    "base_tokens": (1e10, 1e12),
    "expansion_ratio": (1, 64),
    "granularity": (1, 32),
    "activation_ratio": (0.01, 0.5),
    "train_flops": (1e18, 1e22),
    "flops_per_token": (1e8, 1e11),
    "G": (1, 16),
    "num_experts": (1, 256),
}
"""Where runs are drawn from, evenly in the logarithm."""
SHARES = {"shared_ratio": (0.0, 0.6), "weight_sparsity": (0.0, 0.9)}
"""Where shares are drawn from, evenly."""
UNPUBLISHED: dict[str, dict[str, float]] = {
    # Forms without published coefficients, and one whose laws have no irreducible term: numbers of the usual size.
    "expansion_interaction": {
        "A": 300.0, "alpha": 0.3, "B": 1.2, "beta": 0.25, "C": 900.0, "gamma": 0.33, "F": 1.5, "d": 0.0012, "Es": 2.1,
        "Em": 280.0,
    },
    "expert_count_power_law": {"A": 200.0, "alpha": 0.3, "gamma": 0.12, "B": 900.0, "beta": 0.32, "sigma": 1.7},
    "compute_power_law": {"coefficient": 95.18, "exponent": -0.0941, "irreducible": 1.6},
}  # fmt: skip


def truths() -> dict[str, dict[str, float]]:
    """Coefficients by form: those of the first bundled law that has it, else `UNPUBLISHED`."""
    found: dict[str, dict[str, float]] = {}
    for name in law_names():
        for fit in load_law(name).fits.values():
            found.setdefault(fit.form, dict(fit.coefficients))
    found["size_tokens_power_law"] = {"coefficient": 1.79, "size_exponent": -0.713, "tokens_exponent": 0.307}
    return found | UNPUBLISHED


def design(form: str, count: int, seed: int = 1) -> dict[str, Floats]:
    """Random values of a form's variables."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Floats] = {}
    for name in form_variables(form):
        if name in SHARES:
            columns[name] = rng.uniform(*SHARES[name], count)
        elif name == "unique_tokens":
            columns[name] = columns["tokens"] / np.exp(rng.uniform(-0.5, 3, count))
        elif name == "active_params" and "total_params" in columns:
            columns[name] = columns["total_params"] * np.exp(rng.uniform(np.log(0.05), np.log(0.8), count))
        else:
            columns[name] = np.exp(rng.uniform(*np.log(RANGES[name]), count))
    return columns


def predictions(form: str, columns: Mapping[str, Any], coefficients: Mapping[str, float]) -> Floats:
    """A form's values over a design."""
    values = [columns[name] for name in form_variables(form)]
    length = len(values[0]) if values else 20
    return np.asarray(FORMS[form](*values, **coefficients) * np.ones(length))


def problem(form: str, count: int = 60, noise: float = 0.0, seed: int = 1, **options: Any) -> Problem:
    """A problem whose coefficients are known."""
    columns = design(form, count, seed)
    observed = predictions(form, columns, truths()[form])
    rng = np.random.default_rng(seed + 1000)
    return make_problem(form, columns, observed * np.exp(noise * rng.standard_normal(len(observed))), **options)


def write_runs(path: Any, columns: Mapping[str, Any]) -> str:
    """Columns as a CSV file."""
    rows = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
