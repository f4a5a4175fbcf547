"""Params of a `config.json` that no field of an `Architecture` speaks of: small parts by type, and n-gram tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from moeplan.architecture.hf.keys import Keys
from moeplan.architecture.hf.types import Gap, TypeFacts
from moeplan.errors import UsageError

_MOST_ROWS = 10**9
"""Rows of an n-gram table beyond which a config is a mistake."""


def extra_params(
    keys: Keys,
    facts: TypeFacts,
    fields: Mapping[str, Any],
    kinds: list[str] | None,
    pattern: list[bool],
    gaps: list[Gap],
) -> tuple[tuple[str, int], ...]:
    """(group, params) of parts beside those that the fields of an `Architecture` and its `Blocks` count.

    `pattern`: which layers have experts, empty for none.
    """
    num_layers, moe = fields["num_layers"], sum(pattern)
    copies = {"model": 1, "layer": num_layers, "moe_layer": moe, "dense_layer": num_layers - moe}
    found: dict[str, int] = {}
    for part in facts.extra:
        where, _, kind = part.where.partition(":")
        number = (kinds or []).count(kind) if where == "kind" else copies[where]
        stated = keys.present(part.when).get(part.when) if part.when else True
        if not number or not stated:
            continue
        sizes = {formula: keys.formula(formula) for formula in part.params}
        lacking = [formula for formula, size in sizes.items() if size is None]
        if lacking:
            gaps.append(Gap(f"what {', '.join(lacking)} would say the size of", (part.group,)))
            continue
        params = sum(times * (sizes[formula] or 0) for formula, times in part.params.items())
        found[part.group] = found.get(part.group, 0) + number * params
    parts = [*keys.objects("block_configs", "attention", num_layers), *keys.objects("block_configs", "ffn", num_layers)]
    if idle := sum(bool(part.get("no_op")) for part in parts):  # a part that is not there has no norm before it
        found["norms"] = found.get("norms", 0) - idle * fields["d_model"]
    if facts.ngrams:
        for group, params in _ngrams(keys, fields["d_model"]):
            found[group] = found.get(group, 0) + params
    return tuple((group, params) for group, params in found.items() if params)


def _ngrams(keys: Keys, d_model: int) -> Iterator[tuple[str, int]]:
    """Layers that look up n-grams of tokens (Qwen4-Exp): hashed tables, of as many rows as primes in turn, and maps."""
    layers = keys.entries("ple_layer_ids") or []
    streams, size, heads = (keys.size(name) for name in ("hc_count", "ngram_size", "heads_per_ngram"))
    base, multiple = keys.size("ngram_vocab_size_base"), keys.size("make_ngram_vocab_size_divisible_by")
    taps, width = keys.size("ple_conv_kernel_size"), keys.size("ple_embed_dim") or d_model
    keys.get("split_ngram_parts")
    if not layers:
        return
    if not (streams and size and heads and base and multiple and taps):
        raise UsageError("lacks a size of its n-gram tables, which ple_layer_ids needs")
    tables = (size - 1) * heads
    if base > _MOST_ROWS or len(layers) * tables > 10_000:
        raise UsageError(f"ngram_vocab_size_base {base} and ple_layer_ids make tables beyond {_MOST_ROWS} rows")
    primes = _primes_from(base)
    for _ in layers:
        rows = sum(next(primes) for _ in range(tables))
        yield "input_embedding", -(-rows // multiple) * multiple * (width // tables)
        wide = streams * d_model
        yield "attention", width * wide + width * d_model + (3 + taps) * wide


def _primes_from(least: int) -> Iterator[int]:
    number = max(least, 2)
    while True:
        if all(number % divisor for divisor in range(2, math.isqrt(number) + 1)):
            yield number
        number += 1
