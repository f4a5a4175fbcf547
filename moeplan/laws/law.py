"""A law: one published paper's fits, with citation, conventions, domain, grades and the paper's own numbers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from moeplan.architecture.conventions import ARCHITECTURAL, Variables, default_convention
from moeplan.errors import LawError
from moeplan.laws.reader import FileSection
from moeplan.laws.signatures import FORMS, form_variables, trades_size
from moeplan.quantities import BY_VARIABLE
from moeplan.records import Word

SCHEMA = "moeplan.law/1"
GRADES = {
    "proven": "recomputed from the paper's own tables or raw data",
    "fitted": "fitted by moeplan to the user's own runs",
    "read": "read in the paper's text",
    "second_hand": "one secondary source, consistent with the stated results",
    "inferred": "computed here, not stated in the paper",
}
"""How sure a digit is, the surest first."""
PREDICTS = {
    "loss": "nats/token",
    "efficiency_leverage": "dense FLOPs / MoE FLOPs at equal loss",
    "allocation_efficiency": "share of the budget that counts",
    "active_params": "params",
    "flops_per_token": "FLOPs",
    "tokens": "tokens",
    "learning_rate": "",
    "batch_tokens": "tokens",
    "decay_fraction": "share of the tokens",
    "effective_tokens": "tokens",
}
"""Quantities that a fit can predict, with their units."""


@dataclass(frozen=True)
class Uncertainty:
    """How far a prediction may be off, as a fit's own residuals and a stated widening rule say."""

    level: float
    """Probability that the interval is meant to cover."""
    rms: float
    """Root mean square residual of ln(prediction) inside the domain."""
    floor: float
    """Least half-width of the interval, in ln."""
    per_decade_outside: float
    """Added (in quadrature) to `rms` for each factor of 10 outside the domain, summed over the equation's variables."""
    source: str
    """Where level, rms and floor come from."""
    per_decade_source: str
    """Where the widening outside the domain comes from."""

    def half_width(self, decades_outside: float) -> float:
        """Half-width of the interval in ln: max(floor, z(level) * sqrt(rms^2 + (per_decade_outside*decades)^2))."""
        from statistics import NormalDist

        z = NormalDist().inv_cdf(0.5 + self.level / 2)
        return max(self.floor, z * math.hypot(self.rms, self.per_decade_outside * decades_outside))


@dataclass(frozen=True)
class Covariance:
    """How the coefficients of a fit vary together, where its runs are at hand."""

    coordinates: Mapping[str, str]
    """ln or linear, by coefficient in the matrix's order: whether its logarithm or it itself is meant."""
    matrix: tuple[tuple[float, ...], ...]
    """The covariance of these coordinates, symmetric."""
    draws: tuple[tuple[float, ...], ...] = ()
    """A sample of the coefficients as the fit drew them, in the same order; empty if the file gives none."""


@dataclass(frozen=True)
class ResidualError:
    """How far the runs of a fit lie from it."""

    rms: float
    """Root mean square of ln(measured / predicted)."""
    degrees_of_freedom: int
    """Runs less coefficients that they determine."""


NO_TRADE = "it does not trade model size against tokens; it can only be a second opinion"
"""Why a law whose form does not `trades_size` cannot choose a design."""
COORDINATES = ("ln", "linear")
"""Coordinates that a covariance can have."""


@dataclass(frozen=True)
class Outside:
    """A variable beyond the range that a fit was measured on."""

    variable: Word
    """The variable."""
    value: Annotated[float, BY_VARIABLE]
    """Its value, in the fit's convention."""
    low: Annotated[float, BY_VARIABLE]
    """Least value measured."""
    high: Annotated[float, BY_VARIABLE]
    """Largest value measured."""

    @property
    def decades(self) -> float:
        """How far outside, in factors of 10."""
        bound = self.low if self.value < self.low else self.high
        return math.inf if bound <= 0 or self.value <= 0 else abs(math.log10(self.value / bound))


@dataclass(frozen=True)
class Fit:
    """One fitted equation of a law."""

    law: str
    """Name of the law it belongs to."""
    name: str
    """Name of the fit inside its law."""
    predicts: str
    """The predicted quantity, one of `PREDICTS`."""
    form: str
    """Name of its equation, one of `FORMS`."""
    coefficients: Mapping[str, float]
    """The digits, by the paper's letters."""
    stderr: Mapping[str, float]
    """Standard errors, where published."""
    grades: Mapping[str, str]
    """How sure each digit is, one of `GRADES`."""
    conventions: Mapping[str, str]
    """How each variable is counted; see `moeplan.architecture.conventions.CONVENTIONS`."""
    unstated: tuple[str, ...]
    """Variables whose convention the paper leaves open; `conventions` holds the choice made here."""
    domain: Mapping[str, tuple[float, float]]
    """Range of each variable that was measured."""
    fixed: Mapping[str, float]
    """Values held fixed in all runs of this fit."""
    dense: Mapping[str, float]
    """Values of the form's variables at which it describes a dense model; empty if there are none."""
    dense_fit: str
    """Name of the fit that describes dense models instead; "" if there is none."""
    family: str
    """Continuous family for the law's own optimum, one of `FAMILIES`; "" if there is none."""
    band: float
    """Multiplicative band within which the paper found results near-optimal (x/band to x*band); 0 if not given."""
    uncertainty: Uncertainty | None
    """Residuals and widening rule, where known."""
    note: str
    """One sentence on what this fit is."""
    covariance: Covariance | None = None
    """How the coefficients vary together, where known."""
    residual: ResidualError | None = None
    """How far the runs lie from it, where known."""
    terms: tuple[str, ...] = ()
    """Where each of its terms keeps its sign, in the words of `moeplan.laws.terms`; empty if the file says nothing."""

    @property
    def full_name(self) -> str:
        """`law/fit`."""
        return f"{self.law}/{self.name}"

    @property
    def is_dense_only(self) -> bool:
        """Whether it was fitted on dense models alone, and so says nothing about a MoE."""
        return self.fixed.get("activation_ratio") == 1

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables of its equation, in order."""
        return form_variables(self.form)

    @property
    def grade(self) -> str:
        """The least sure grade among its digits."""
        order = list(GRADES)
        return max(self.grades.values(), key=order.index)

    @property
    def scatter(self) -> float | None:
        """Standard deviation of a run's ln about the true law, where residuals are known.

        The mean square residual is over the runs that were fitted; others scatter a little more about the true law.
        """
        if self.residual is None:
            return None
        freedom = self.residual.degrees_of_freedom
        return self.residual.rms * math.sqrt((freedom + len(self.coefficients)) / freedom if freedom else 1.0)

    @property
    def equation(self) -> str:
        """The equation as text, from the form's docstring."""
        doc = inspect.getdoc(FORMS[self.form]) or ""
        return doc.split("\n\n")[0].replace("\n", " ")

    def __call__(self, *values: Any) -> Any:
        """The prediction at `values`, given in the order of `variables`; floats or arrays."""
        with np.errstate(all="ignore"):  # results that are not finite are for the caller to refuse
            # numpy's floats overflow to inf where Python's raise
            return FORMS[self.form](
                *(value if isinstance(value, np.ndarray) else np.float64(value) for value in values),
                **self.coefficients,
            )

    def convention(self, variable: str) -> str:
        """How this fit counts `variable` ("" where there is only one way)."""
        return self.conventions.get(variable, default_convention(variable))

    def at(self, variables: Variables, tokens: Any = None) -> Any:
        """The prediction for an architecture (or a grid of them) trained on `tokens`, in this fit's conventions."""
        return self(*variables.select(self.variables, self.conventions, tokens))

    def outside(self, variables: Variables, tokens: Any = None) -> tuple[Outside, ...]:
        """The domain's variables that an architecture with `tokens` leaves, with value and measured range."""
        found = []
        fixed = {name: (value, value) for name, value in self.fixed.items() if name not in self.domain}
        for name, (low, high) in {**self.domain, **fixed}.items():
            if name not in ARCHITECTURAL:
                continue
            value = float(variables.get(name, self.convention(name), tokens))
            # A hair of slack: 6.6666667 experts' width is not outside a range that ends at 20/3.
            if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                found.append(Outside(name, value, low, high))
        return tuple(found)


@dataclass(frozen=True)
class PaperTable:
    """Measured points of a paper, as it prints them."""

    name: str
    """Name of the table inside its law."""
    note: str
    """The quantities measured, and those held fixed."""
    grade: str
    """How sure the digits are."""
    columns: tuple[str, ...]
    """Names of the columns."""
    rows: tuple[tuple[float, ...], ...]
    """The points."""


@dataclass(frozen=True)
class Citation:
    """Where a law was published."""

    authors: str
    """First author and others."""
    year: int
    """Year of publication; 0 for a fit to a user's own runs."""
    title: str
    """Title of the paper."""
    arxiv: str
    """arXiv id; "" if it has none."""
    where: str
    """Section, equation and table of the digits."""

    def __str__(self) -> str:
        place = f", arXiv {self.arxiv}" if self.arxiv else ""
        year = f" ({self.year})" if self.year else ""
        return f"{self.authors}{year}. {self.title}{place}. {self.where}"


@dataclass(frozen=True)
class Law:
    """A law file, read and validated. `load_law` makes one."""

    name: str
    """Short name: first author and year."""
    title: str
    """The law in a few words."""
    citation: Citation
    """Where it was published."""
    digits: str
    """Where the digits come from."""
    fits: Mapping[str, Fit]
    """Its fitted equations by name; the first that can judge an architecture is its `objective`."""
    tables: tuple[PaperTable, ...]
    """Its measured points."""
    notes: tuple[str, ...]
    """Caveats and findings."""
    checks: tuple[FileSection, ...]
    """The paper's own numbers; `moeplan.laws.checks` runs them."""
    path: str
    """The file it was read from."""
    digest: str
    """SHA-256 of the file, first 16 hex digits."""
    chosen: str = ""
    """The fit asked for, as in "krajewski2024/moe-e16"; "" for the default."""
    source: str = ""
    """What it was asked for by: a name, or a file's path; loads it again."""
    weight: float = 1.0
    """Its weight in a geometric mean with others: a constant of the request, never of a design."""

    @property
    def full_name(self) -> str:
        """The name by which this law, with the chosen fit, can be loaded again."""
        return f"{self.name}/{self.chosen}" if self.chosen else self.name

    @property
    def objective(self) -> Fit | None:
        """The fit that judges an architecture: the chosen one, or the first that predicts leverage or loss."""
        if self.chosen:
            return self.fits[self.chosen]
        for fit in self.fits.values():
            if fit.predicts in ("efficiency_leverage", "loss") and set(fit.variables) <= set(ARCHITECTURAL):
                return fit
        return None

    def require_objective(self) -> Fit:
        """The fit that judges an architecture; raises `LawError` for a law without one."""
        fit = self.objective
        if fit is None:
            raise LawError(f"law {self.full_name} judges no architecture")
        return fit

    @property
    def speaks_by(self) -> Fit:
        """The fit whose measured range counts: the objective, or that of tokens in a law of allocation alone."""
        return self.objective or self.predicting("tokens")

    @property
    def allocation(self) -> Fit | None:
        """The fit that says what a misallocated budget costs, for laws that see neither size nor tokens."""
        return next((fit for fit in self.fits.values() if fit.predicts == "allocation_efficiency"), None)

    @property
    def can_search(self) -> bool:
        """Whether the law can choose an architecture at a compute budget: it must trade size against tokens."""
        fit = self.objective
        if fit is None or fit.is_dense_only or not set(fit.variables) <= set(ARCHITECTURAL):
            return False
        if fit.predicts == "efficiency_leverage":
            return self.allocation is not None
        return fit.predicts == "loss" and trades_size(fit.form)

    @property
    def why_not(self) -> str:
        """Why the law cannot choose an architecture at a compute budget."""
        fit = self.objective
        if fit is None:
            return "it predicts neither loss nor leverage of an architecture"
        if fit.is_dense_only:
            return "it describes dense models only"
        if fit.predicts == "efficiency_leverage":
            return "it sees neither size nor tokens, and has no fit that predicts allocation_efficiency"
        if fit.predicts != "loss" or not set(fit.variables) <= set(ARCHITECTURAL):
            return f"its fit {fit.name} predicts {fit.predicts} from {', '.join(fit.variables)}"
        return NO_TRADE

    @property
    def has_dense(self) -> bool:
        """Whether the law says anything about dense models."""
        fit = self.objective
        return fit is not None and (fit.predicts == "efficiency_leverage" or bool(fit.dense or fit.dense_fit))

    @property
    def grade(self) -> str:
        """The least sure grade among its objective's digits (of all its digits where it has no objective)."""
        order = list(GRADES)
        if self.objective is not None:
            return self.objective.grade
        return max([fit.grade for fit in self.fits.values()] + [t.grade for t in self.tables], key=order.index)

    def predicting(self, what: str, name: str = "") -> Fit:
        """The fit called `name`, or the first that predicts `what`; raises `LawError` if there is none."""
        for fit in self.fits.values():
            if fit.name == name or (not name and fit.predicts == what):
                return fit
        raise LawError(f"law {self.name} has no fit {name or f'that predicts {what}'}")


def relative_weights(laws: Sequence[Law]) -> tuple[float, ...]:
    """The weights of laws in units of the largest, so that equal ones are exactly 1."""
    most = max(law.weight for law in laws)
    return tuple(law.weight / most for law in laws)
