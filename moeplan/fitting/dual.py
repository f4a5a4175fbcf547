"""Forward-mode derivatives of the forms: values that carry their derivatives by coefficient.

A form of `moeplan.laws.forms` given `Dual`s for coefficients returns its value and, for each coefficient that it
depends on, the exact derivative: the equation is written once, and its Jacobian follows from it. Derivatives are kept
by name, so a term costs only its own coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Parts = dict[str, Any]


class Dual:
    """A value (an array that broadcasts) with its derivatives by the names of coefficients."""

    __slots__ = ("parts", "value")

    def __init__(self, value: Any, parts: Parts) -> None:
        self.value, self.parts = value, parts

    def __add__(self, other: Any) -> Dual:
        if not isinstance(other, Dual):
            return Dual(self.value + other, self.parts)
        return Dual(self.value + other.value, _merged(self.parts, other.parts))

    __radd__ = __add__

    def __neg__(self) -> Dual:
        return self.__mul__(-1.0)

    def __sub__(self, other: Any) -> Dual:
        return self.__add__(-1.0 * other)

    def __rsub__(self, other: Any) -> Dual:
        return self.__neg__().__add__(other)

    def __mul__(self, other: Any) -> Dual:
        if not isinstance(other, Dual):
            return Dual(self.value * other, {name: part * other for name, part in self.parts.items()})
        mine = {name: part * other.value for name, part in self.parts.items()}
        theirs = {name: part * self.value for name, part in other.parts.items()}
        return Dual(self.value * other.value, _merged(mine, theirs))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Dual:
        return self.__mul__(1 / other)

    def __rtruediv__(self, other: Any) -> Dual:
        inverse = 1 / self.value
        return self._chain(inverse, -inverse * inverse).__mul__(other)

    def __pow__(self, other: Any) -> Dual:
        if isinstance(other, Dual):
            return _exp(_log(self) * other)
        value = self.value**other
        return self._chain(value, other * value / self.value)

    def __rpow__(self, other: Any) -> Dual:
        return _exp(self * np.log(other))

    def __getitem__(self, key: Any) -> Dual:
        return Dual(self.value[key], {name: np.asarray(part)[key] for name, part in self.parts.items()})

    def _chain(self, value: Any, slope: Any) -> Dual:
        """A function of this: its value and its derivative here."""
        return Dual(value, {name: part * slope for name, part in self.parts.items()})

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        function = _UFUNCS.get(ufunc)
        if function is None or method != "__call__" or options:
            return NotImplemented
        return function(*inputs)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        if function is not np.where or options:
            return NotImplemented
        return _where(*arguments)


def _merged(first: Parts, second: Parts) -> Parts:
    merged = dict(first)
    for name, part in second.items():
        merged[name] = merged[name] + part if name in merged else part
    return merged


def _exp(x: Dual) -> Dual:
    value = np.exp(x.value)
    return x._chain(value, value)


def _log(x: Dual) -> Dual:
    return x._chain(np.log(x.value), 1 / x.value)


def _power(base: Any, exponent: Any) -> Dual:
    return base**exponent if isinstance(base, Dual) else exponent.__rpow__(base)  # type: ignore[no-any-return]


def _where(condition: Any, first: Any, second: Any) -> Dual:
    a, b = (x if isinstance(x, Dual) else Dual(x, {}) for x in (first, second))
    names = dict.fromkeys([*a.parts, *b.parts])
    parts = {name: np.where(condition, a.parts.get(name, 0.0), b.parts.get(name, 0.0)) for name in names}
    return Dual(np.where(condition, a.value, b.value), parts)


def _maximum(first: Any, second: Any) -> Dual:
    values = [x.value if isinstance(x, Dual) else x for x in (first, second)]
    return _where(values[0] >= values[1], first, second)


_UFUNCS: dict[Any, Callable[..., Dual]] = {
    np.add: lambda a, b: a + b if isinstance(a, Dual) else b + a,
    np.subtract: lambda a, b: a - b if isinstance(a, Dual) else b.__rsub__(a),
    np.multiply: lambda a, b: a * b if isinstance(a, Dual) else b * a,
    np.true_divide: lambda a, b: a / b if isinstance(a, Dual) else b.__rtruediv__(a),
    np.power: _power,
    np.negative: lambda a: -a,
    np.exp: _exp,
    np.expm1: lambda a: a._chain(np.expm1(a.value), np.exp(a.value)),
    np.log: _log,
    np.log2: lambda a: _log(a) * (1 / np.log(2)),
    np.log10: lambda a: _log(a) * (1 / np.log(10)),
    np.maximum: _maximum,
    np.minimum: lambda a, b: -_maximum(-a, -b),
}
