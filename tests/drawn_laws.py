"""Laws whose coefficients are known only so well, for tests of intervals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

import numpy as np

from moeplan.laws import Fit, Law, load_law
from moeplan.laws.law import Covariance, ResidualError
from moeplan.laws.signatures import form_coordinates
from moeplan.numerics import Floats


def kinds(fit: Fit) -> dict[str, str]:
    """The coordinate that each coefficient is fitted in."""
    return {name: form_coordinates(fit.form).coordinates[name].kind for name in fit.coefficients}


def with_covariance(law: Law, covariance: Covariance, residual: ResidualError | None = None) -> Law:
    """A law whose objective has a covariance."""
    fit = law.objective
    assert fit is not None
    fit = dataclasses.replace(fit, covariance=covariance, residual=residual)
    return dataclasses.replace(law, fits=MappingProxyType({**law.fits, fit.name: fit}))


def uncertain(name: str, deviation: float) -> Law:
    """A bundled law, each amplitude known to `deviation`, each other coefficient to .3 of that, independently."""
    law = load_law(name)
    fit = law.objective
    assert fit is not None
    own = kinds(fit)
    scale = [deviation if own[key] == "ln" else 0.3 * deviation * abs(x) for key, x in fit.coefficients.items()]
    return with_covariance(law, Covariance(own, tuple(map(tuple, np.diag(np.square(scale)).tolist()))))


def correlated(name: str, deviation: float, seed: int) -> Law:
    """A bundled law with a full covariance."""
    law = uncertain(name, deviation)
    fit = law.objective
    assert fit is not None
    assert fit.covariance is not None
    mixing = np.random.default_rng(seed).standard_normal((len(fit.coefficients),) * 2)
    correlation = mixing @ mixing.T
    correlation /= np.sqrt(np.outer(np.diag(correlation), np.diag(correlation)))
    scale = np.sqrt(np.diag(np.array(fit.covariance.matrix)))
    matrix = correlation * np.outer(scale, scale)
    return with_covariance(law, Covariance(fit.covariance.coordinates, tuple(map(tuple, matrix.tolist()))))


def drawn_as(law: Law, coefficients: dict[str, Floats], residual: ResidualError | None = None) -> Law:
    """A law that carries draws of its own."""
    fit = law.objective
    assert fit is not None
    size = len(fit.coefficients)
    zeros = tuple((0.0,) * size for _ in range(size))
    draws = tuple(zip(*(coefficients[name].tolist() for name in fit.coefficients), strict=True))
    return with_covariance(law, Covariance(kinds(fit), zeros, draws), residual)


def write_drawn(path: Path, name: str, deviation: float = 0.01) -> Path:
    """A bundled law's file, under the name of `path`, with 40 draws of the objective's coefficients."""
    law = load_law(name)
    fit = law.objective
    assert fit is not None
    rng = np.random.default_rng(3)
    lines = []
    for _ in range(40):
        factors = np.exp(deviation * rng.standard_normal(len(fit.coefficients)))
        lines.append(" ".join(f"{x * y:.10g}" for x, y in zip(fit.coefficients.values(), factors, strict=True)))
    size = len(fit.coefficients)
    zeros = ", ".join(["[" + ", ".join(["0"] * size) + "]"] * size)
    linear = ", ".join(f"{key}: linear" for key in fit.coefficients)
    block = f"    covariance:\n      coordinates: {{{linear}}}\n      matrix: [{zeros}]\n      draws: |\n"
    block += "".join(f"        {line}\n" for line in lines)
    text = Path(law.path).read_text(encoding="utf-8")
    start = text.index(f"  {fit.name}:\n") + len(f"  {fit.name}:\n")
    path.write_text((text[:start] + block + text[start:]).replace(f"name: {name}", f"name: {path.stem}", 1))
    return path
