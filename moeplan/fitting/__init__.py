"""Fitting a law to a user's own runs: `fit("runs.csv", form="expansion_joint")`.

Runs are read and selected (`runs`, `selection`), a form of `moeplan.laws.forms` is fitted to them (`problem`, `start`,
`solve`), what they leave open is named (`identify`), intervals are bootstrapped (`bootstrap`), the largest runs are
held out (`holdout`), and the result is written as a law file (`write`). `suggest` says what to run next.
"""

from __future__ import annotations

from moeplan.fitting.estimate import fit
from moeplan.fitting.result import FittedLaw, fitted_schema
from moeplan.fitting.write import law_text

__all__ = ["FittedLaw", "fit", "fitted_schema", "law_text"]
