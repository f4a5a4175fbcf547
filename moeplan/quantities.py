"""The quantities, each once: symbol, kind and meaning of every quantity of the glossary, and how it is written.

A `Kind` writes numbers of one sort: `SHARE.text(0.0851)` is "8.51 %". A `Quantity` is a name of the glossary with its
symbol, kind and meaning. A field of a dataclass is of the kind that its annotation gives (`Annotated[float, FLOPS]`),
else of the one that `QUANTITIES` gives its name; reports, charts and JSON schemas read it there.
"""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moeplan.units import format_count, format_decimal_bytes, format_duration, format_flops


def number(value: float, digits: int = 3) -> str:
    """A plain number with `digits` significant digits: 9.19, 0.000312, 1,290."""
    if value and math.isfinite(value) and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    text = f"{value:#.{digits}g}"
    return text.rstrip("0").rstrip(".")


def scientific(value: float, digits: int = 3) -> str:
    """A small or large number: 0.000502 -> "5.02e-4"."""
    return format_flops(value, digits) if value else "0"


def percent(share: float, digits: int = 3) -> str:
    """A share as a percentage: 0.0851 -> "8.51 %"."""
    return f"{number(100 * share, digits)} %"


def times(ratio: float, digits: int = 3) -> str:
    """A multiple: 6.1 -> "6.10x"."""
    whole = float(f"{ratio:.{digits}g}") >= 10 ** (digits - 1)
    return f"{ratio:,.0f}x" if whole else f"{ratio:#.{digits}g}x"


def _plain(value: float, digits: int) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e7 else number(value, digits)


@dataclass(frozen=True)
class Kind:
    """How numbers of one sort are written."""

    name: str
    """What a format asks for it by."""
    unit: str
    """The unit of a value, as JSON has it; "" for ratios and counts."""
    write: Callable[[float, int], str]
    """A value and how many significant digits to its text."""
    digits: int = 3
    """Digits that are shown unless more or fewer are asked for."""

    def text(self, value: float, digits: int = 0) -> str:
        """A value as text."""
        return self.write(value, digits or self.digits)

    def ends(self, low: float, high: float, digits: int = 0) -> tuple[str, ...]:
        """Both ends of a range as text, one where they read alike; a unit that both have stands at the second."""
        first, second = self.text(low, digits), self.text(high, digits)
        if first == second:
            return (first,)
        both = first.endswith(" %") and second.endswith(" %")
        return (first[:-2] if both else first, second)


FLOPS = Kind("flops", "FLOPs", scientific)
BYTES = Kind("bytes", "bytes", format_decimal_bytes)
COUNT = Kind("count", "", format_count)
SHARE = Kind("share", "", percent)
TIMES = Kind("times", "", times)
LOSS = Kind("loss", "nats/token", number, 4)
RATE = Kind("rate", "", scientific)
DURATION = Kind("duration", "s", lambda seconds, digits: format_duration(seconds))
NUMBER = Kind("number", "", number)
INTEGER = Kind("integer", "", lambda value, digits: f"{value:,.0f}")
PLAIN = Kind("plain", "", _plain)
BY_VARIABLE = Kind("variable", "", _plain)
"""Of the kind of the variable that the field `variable` beside it names."""
BY_KEY = Kind("key", "", _plain)
"""A dict's values, each of the kind of the variable that is its key."""

KINDS = {kind.name: kind for kind in (FLOPS, BYTES, COUNT, SHARE, TIMES, LOSS, RATE, DURATION, NUMBER, INTEGER, PLAIN)}
"""Kinds by the name that a format has for them."""


@dataclass(frozen=True)
class Quantity:
    """A name of the glossary."""

    name: str
    """In flags, YAML, JSON and Python."""
    symbol: str
    """In equations; "" for none."""
    kind: Kind
    """How its values are written, and their unit."""
    meaning: str
    """What it is."""


QUANTITIES: dict[str, Quantity] = {
    name: Quantity(name, symbol, kind, meaning)
    for name, symbol, kind, meaning in (
        ("total_params", "N", COUNT, "N: params, embeddings included"),
        ("active_params", "N_a", COUNT, "N_a: params a token passes through, embeddings included"),
        ("active_param_ratio", "N_a/N", SHARE, "N_a/N"),
        ("tokens", "D", COUNT, "D: training tokens"),
        ("tokens_per_param", "D/N_a", PLAIN, "D/N_a: tokens per active param"),
        ("G", "G", PLAIN, "active experts per token including shared ones"),
        ("shared_ratio", "S", SHARE, "S = shared/(active + shared) experts"),
        ("granularity", "g", PLAIN, "2*d_model/d_expert"),
        ("activation_ratio", "A", SHARE, "A = num_active_experts/num_experts, routed only"),
        ("expansion_ratio", "", PLAIN, "total expert width / active expert width"),
        ("num_experts", "E", PLAIN, "routed experts a layer"),
        ("num_active_experts", "k", PLAIN, "routed experts a token reaches"),
        ("num_shared_experts", "s", PLAIN, "shared experts a layer"),
        ("d_expert", "", PLAIN, "width of one expert"),
        ("d_model", "", PLAIN, "width of the residual stream"),
        ("num_layers", "", PLAIN, "blocks"),
        ("num_heads", "", PLAIN, "query heads"),
        ("attention_share", "", SHARE, "attention's share of a MoE block's FLOPs"),
        ("num_dense_layers", "", PLAIN, "first layers without experts, 0 or 1"),
        ("nonzero_params", "", COUNT, "params that pruning leaves"),
        ("base_params", "", COUNT, "params of the dense model that experts are made from"),
        ("base_tokens", "", COUNT, "tokens that this dense model was trained on"),
        ("unique_tokens", "", COUNT, "tokens without repeats"),
        ("flops", "C", FLOPS, "compute"),
        ("train_flops", "C", FLOPS, "training compute"),
        ("flops_per_token", "M", FLOPS, "training compute a token, forward + backward"),
        ("loss", "L", LOSS, "loss a token"),
        ("efficiency_leverage", "EL", TIMES, "dense compute / MoE compute at equal loss"),
        ("allocation_efficiency", "phi", SHARE, "what a split of compute into size and tokens leaves of EL"),
        ("learning_rate", "", RATE, "peak learning rate"),
        ("value_ratio", "V/C", SHARE, "what the constraints leave of the budget"),
        ("mfu", "MFU", SHARE, "share of the dense bf16 peak that model FLOPs reach"),
        ("gpu_hours", "", COUNT, "device-hours"),
        ("kv_bytes_per_token", "", BYTES, "cached keys and values, or latents, of one token"),
        ("seconds", "", DURATION, "time"),
        ("experts_hit", "", NUMBER, "experts of a layer that a batch reaches, as expected of uniform routing"),
    )
}
"""The glossary by name."""


_ENDINGS = {"_flops": FLOPS, "_bytes": BYTES, "_params": COUNT, "_tokens": COUNT}
"""What names end in that say their unit."""


def _named(name: str) -> Kind | None:
    if name in QUANTITIES:
        return QUANTITIES[name].kind
    return next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), None)


def kind_of(name: str) -> Kind:
    """The kind of a quantity by its name; plain for names that say none."""
    return _named(name) or PLAIN


def symbol(name: str) -> str:
    """A quantity's letter in equations; "" for none."""
    return QUANTITIES[name].symbol if name in QUANTITIES else ""


def quantity(name: str, value: float, digits: int = 0) -> str:
    """A variable's value as text, by the variable's kind: params and tokens in B and T, ratios of params in percent."""
    return kind_of(name).text(value, digits)


def interval(name: str, low: float, high: float) -> str:
    """A range of a variable as text; one value where both ends read alike."""
    return "–".join(kind_of(name).ends(low, high))


@functools.cache
def field_kinds(made: type) -> dict[str, Kind]:
    """The kind of every field of a dataclass whose numbers have one: by annotation, by name, else by Python type."""
    hints = typing.get_type_hints(made, include_extras=True)
    return {name: _annotated(hint) or _named(name) or _typed(hint) for name, hint in hints.items()}


def _annotated(hint: Any) -> Kind | None:
    return next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Kind)), None)


def _typed(hint: Any) -> Kind:
    return INTEGER if hint is int or int in typing.get_args(hint) else NUMBER
