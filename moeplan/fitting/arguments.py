"""Arguments of `moeplan fit` as people type them: NAME=VALUE pairs, and a law's name from its file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from moeplan.errors import UsageError


def pairs(texts: Iterable[str], flag: str, example: str) -> dict[str, str]:
    """Texts like "total_params=N" as a mapping; raises `UsageError` for another text and for a name given twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not name or not value:
            raise UsageError(f"{flag} {text!r} is no NAME=VALUE; write it like {example}")
        if name in found:
            raise UsageError(f"{flag} names {name} twice; give one")
        found[name] = value
    return found


def values(texts: Iterable[str], flag: str, example: str) -> dict[str, float]:
    """Texts like "num_experts=64" as numbers."""
    found = {}
    for name, text in pairs(texts, flag, example).items():
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UsageError(f"{flag} {name}={text} is no number; write it like {example}")
        found[name] = value
    return found


def stem(path: str) -> str:
    """The law's name from its file; raises `UsageError` for a name that cannot be loaded again."""
    if not path.endswith((".yaml", ".yml")):
        raise UsageError(f"output {path!r} is no law file; the name of one ends in .yaml")
    return Path(path).stem
