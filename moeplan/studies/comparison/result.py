"""The result of a comparison: `Comparison`, frozen and typed, the same in Python, JSON and every report.

Params and memory are exact counts of exact shapes; compute is in FLOPs, memory in bytes. What a law says of a model is
compute: that of the law's own best dense model with the same loss. Losses of two laws never meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moeplan import records
from moeplan.architecture.attention import KINDS
from moeplan.errors import UsageError
from moeplan.laws.pooling import PooledLeverage
from moeplan.notebook import Framed
from moeplan.studies.comparison.answers import EqualLoss, LawColumn, SilentLaw
from moeplan.studies.comparison.candidate import Candidate, ComparisonSetting
from moeplan.studies.comparison.findings import Finding
from moeplan.studies.comparison.optima import Saving, SavingsSpread
from moeplan.studies.comparison.remarks import Versus
from moeplan.studies.comparison.resources import EqualResources

SCHEMA = "moeplan.comparison/1"


@dataclass(frozen=True)
class ComparisonProvenance:
    """Version, command and digests behind a comparison."""

    version: str
    """moeplan's version."""
    command: str
    """The command line, or the Python call."""
    law_digests: dict[str, str]
    """Digest of every law file that was read (SHA-256, 16 hex digits)."""
    grid_digest: str
    """Digest of the declared grid that the MoE, or C_l, is from."""


@dataclass(frozen=True)
class Comparison(records.Record, Framed):
    """Models side by side: a recommended MoE and dense models, or any two."""

    schema: str
    """Version of this structure, moeplan.comparison/1."""
    regime: str
    """overview, compute, memory, loss, resources, or models for any two."""
    setting: ComparisonSetting
    """Budget, serving and hardware behind it."""
    models: tuple[Candidate, ...]
    """The models; the first is the one the others stand beside."""
    pooled: PooledLeverage | None
    """The leverage of a recommended MoE by all laws that know dense models; null for two models and where both have
    the same unique data."""
    laws: tuple[LawColumn, ...]
    """The laws that speak, the leverage law first; two laws' answers are never averaged."""
    silent: tuple[SilentLaw, ...]
    """The laws that do not, with their reasons."""
    versus: tuple[Versus, ...]
    """The first model against each other one."""
    equal_loss: tuple[EqualLoss, ...]
    """Each law's own dense model that is as good as the MoE."""
    savings: tuple[Saving, ...]
    """Saving of each law's own best MoE at this compute."""
    savings_spread: SavingsSpread | None
    """How far the laws' largest savings lie apart."""
    resources: EqualResources | None
    """The strict comparison; null in other regimes."""
    findings: tuple[Finding, ...]
    """Findings of papers."""
    notes: tuple[str, ...]
    """Caveats, in sentences."""
    provenance: ComparisonProvenance
    """Version, command and digests behind it."""

    @classmethod
    def from_json(cls, data: Any) -> Comparison:
        """Read what `to_json` wrote; raises `UsageError` for another schema version or anything malformed."""
        found = data.get("schema") if isinstance(data, dict) else None
        if found != SCHEMA:
            raise UsageError(f"the comparison has schema {found!r}, this version of moeplan reads {SCHEMA}")
        tuple(KINDS)  # loads every kind of attention, so that a model's own is found by its name
        return records.from_json(cls, data)

    def law(self, name: str) -> LawColumn:
        """The answers of the law called `name`; raises `UsageError` if it does not speak."""
        for column in self.laws:
            if column.law == name:
                return column
        raise UsageError(f"law {name!r} does not speak here; {', '.join(column.law for column in self.laws)} do")
