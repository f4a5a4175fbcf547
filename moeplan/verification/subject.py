"""The subject of a study: a plan, or runs that `moeplan fit --suggest` wrote, told apart by their schema."""

from __future__ import annotations

from pathlib import Path

from moeplan.errors import UsageError
from moeplan.files import read_json
from moeplan.fitting import suggestion
from moeplan.fitting.suggestion import Suggestion, suggestion_from
from moeplan.plan.document import SCHEMA, Plan, plan_from


def read_subject(path: str | Path) -> Plan | Suggestion:
    """Read either kind of file; raises `UsageError` naming the file for anything else."""
    data = read_json(path, instead=", so no plan file; make one with moeplan recommend --output")
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema == suggestion.SCHEMA:
        return suggestion_from(data, path)
    if schema in (None, SCHEMA):
        return plan_from(data, path)  # which says what is wrong with a file without a schema
    raise UsageError(
        f"{path}: has schema {schema!r}; verify takes a plan ({SCHEMA}) or runs that moeplan fit --suggest wrote "
        f"({suggestion.SCHEMA})"
    )
