"""The JSON that commands print and files hold, each kind with its JSON Schema: `document_schema("plan")`."""

from __future__ import annotations

import importlib
import types
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Document:
    """A kind of JSON."""

    printed: str
    """What prints it."""
    module: str
    """The module of the package that has its class."""
    name: str
    """The class; a document of several is a list of them."""
    version: str = "SCHEMA"
    """The module's constant that holds its name and version; "" for version 1 of its name here."""
    several: bool = False
    """Whether it is a list."""


DOCUMENTS = {
    "plan": Document("moeplan recommend, and its --output", "plan.document", "Plan"),
    "comparison": Document("moeplan compare", "studies.comparison.result", "Comparison"),
    "frontier": Document("moeplan frontier", "studies.frontier.curves", "Frontier"),
    "inspection": Document("moeplan inspect MODEL", "studies.inspection", "Inspection"),
    "weights": Document("moeplan inspect WEIGHTS", "studies.stored_weights", "StoredWeights"),
    "upcycling": Document("moeplan upcycle", "studies.upcycling.result", "Upcycling"),
    "models": Document("moeplan inspect", "architecture.published", "PublishedModel", "", several=True),
    "fit": Document("moeplan fit", "fitting.result", "FittedLaw"),
    "suggestion": Document("moeplan fit --runs", "fitting.suggestion", "Suggestion"),
    "laws": Document("moeplan laws", "report.law_records", "LawList", ""),
    "law": Document("moeplan laws NAME", "report.law_records", "LawRecord", ""),
    "checks": Document("moeplan laws --check", "report.law_records", "LawChecks", ""),
    "hardware": Document("moeplan hardware", "report.hardware", "HardwareRecord", ""),
    "backtest": Document("moeplan backtest", "studies.backtest.scores", "BackTest"),
    "labs": Document("moeplan backtest --labs", "studies.labs", "Labs"),
    "verification": Document("moeplan verify PLAN, and its --output", "verification.verification", "Verification"),
    "verification_outline": Document(
        "moeplan verify --dry-run", "verification.verification", "Outline", "OUTLINE_SCHEMA"
    ),
    "proxy_runs": Document("moeplan verify RUNS, and its --output", "verification.proxy_runs", "ProxyRuns"),
}
"""Every kind by its name."""


def document_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a kind of JSON in `DOCUMENTS`, with `$id`, every field with its sentence."""
    from moeplan.records import json_schema

    document = DOCUMENTS[name]
    module = importlib.import_module(f"moeplan.{document.module}")
    kind: Any = getattr(module, document.name)
    identity = getattr(module, document.version) if document.version else f"moeplan.{name}/1"
    return json_schema(types.GenericAlias(tuple, (kind, ...)) if document.several else kind, identity)
