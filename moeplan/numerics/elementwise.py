"""The largest, the least and whether any of numbers or arrays, so that one line counts one thing or many.

Numbers stay Python's own, exactly as `max` and `min` leave them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

# Duck-typed over numbers and arrays that broadcast together; results follow their input.
Size = Any


def largest(values: Iterable[Size]) -> Size:
    """The largest of each place."""
    return functools.reduce(lambda a, b: np.maximum(a, b) if _array(a, b) else max(a, b), values)


def least(a: Size, b: Size) -> Size:
    """The lesser of each place."""
    return np.minimum(a, b) if _array(a, b) else min(a, b)


def anywhere(value: Size) -> bool:
    """Whether it is not 0 (or false) at any place."""
    return bool(np.any(value)) if isinstance(value, np.ndarray) else bool(value)


def where(condition: Size, a: Size, b: Size) -> Size:
    """`a` where the condition holds, else `b`."""
    return np.where(condition, a, b) if isinstance(condition, np.ndarray) else (a if condition else b)


def _array(*values: Size) -> bool:
    return any(isinstance(value, np.ndarray) for value in values)
