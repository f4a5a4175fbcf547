"""What a study is about: a plan, or runs that `moeplan fit --suggest` wrote, told apart by their schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moeplan.errors import UsageError
from moeplan.fitting import suggestion
from moeplan.fitting.suggestion import Suggestion, read_suggestion
from moeplan.plan.document import SCHEMA, Plan, read_plan


def read_subject(path: str | Path) -> Plan | Suggestion:
    """Read either kind of file; raises `UsageError` naming the file for anything else."""
    schema = _schema(path)
    if schema == suggestion.SCHEMA:
        return read_suggestion(path)
    if schema in (None, SCHEMA):
        return read_plan(path)  # which says what is wrong with a file without a schema
    raise UsageError(
        f"{path}: has schema {schema!r}; verify takes a plan ({SCHEMA}) or runs that moeplan fit --suggest wrote "
        f"({suggestion.SCHEMA})"
    )


def _schema(path: str | Path) -> Any:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return data.get("schema") if isinstance(data, dict) else None
