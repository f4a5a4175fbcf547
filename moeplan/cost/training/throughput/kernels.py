"""Times of single kernels on one device [s]: products, grouped products, attention.

A product of [M, K] by [K, N] takes launch + max(2*M'*N'*(K + k0)/rate, bytes/bandwidth), where M' = M + 64 stands for M
rounded up to a tile of 128 on average, N' is N rounded up to 128, and k0 is the depth at which half of the rate is
reached. Where a product adds to fp32 gradients, or is one of many small ones in a group, arithmetic and memory do not
overlap fully: (a^p + b^p)^(1/p) of the two.

Sizes may be numbers or arrays of equal length; results follow them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Sizes are duck-typed over numbers and arrays, as in `moeplan.architecture.counting`.
Size = Any

TILE = 128
"""Rows and columns of the tile that products work in."""
OVERLAP_POWER = 1.3
"""p of the sum of arithmetic and memory: 1.28 fits grouped products on a B200 to 7.4 % (SimuMax 4dcaae5)."""
BACKWARD_ATTENTION = 2.5 / 0.8
"""Backward over forward pass of attention: 5 products for 2, at 0.8 of the rate (SimuMax 4dcaae5, B200)."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the kernels of one device reach in one precision."""

    flops: float
    """Large products [FLOP/s]."""
    bf16_flops: float
    """The same in bf16, whatever the precision [FLOP/s]."""
    grouped_flops: float
    """Grouped products [FLOP/s]."""
    recurrent_flops: float
    """Recurrences in chunks [FLOP/s]."""
    attention_flops: float
    """Attention over long sequences [FLOP/s]."""
    half_depth: float
    """k0 of products [features]."""
    half_seq_len: float
    """Sequence length at which attention reaches half of its rate [tokens]."""
    narrow_heads: float
    """Share of the attention's rate that heads of 64 features reach; heads of 128 reach all."""
    bandwidth: float
    """Device memory, within products [bytes/s]."""
    launch: float
    """Start of one kernel [s]."""
    bytes: float
    """Bytes of one number that enters a product."""


def _columns(n: Size) -> Size:
    return np.ceil(n / TILE) * TILE


def _both(a: Size, b: Size) -> Size:
    more = np.maximum(a, b)  # taken out of the sum, so that two powers do for three
    return more * (1 + (np.minimum(a, b) / more) ** OVERLAP_POWER) ** (1 / OVERLAP_POWER)


def product(rates: Rates, rows: Size, columns: Size, depth: Size) -> Size:
    """One forward product [rows, depth] x [depth, columns] with a bf16 result [s]."""
    columns, depth = _columns(columns), _columns(depth)
    work = 2 * (rows + TILE / 2) * columns * (depth + rates.half_depth) / rates.flops
    moved = (rates.bytes * depth * (rows + columns) + 2 * rows * columns) / rates.bandwidth
    return rates.launch + np.maximum(work, moved)


def trained_product(rates: Rates, rows: Size, columns: Size, depth: Size) -> tuple[Size, Size]:
    """The product, its gradient of the input, and that of the weights, added in fp32; and the product alone [s]."""
    columns, depth = _columns(columns), _columns(depth)
    work = 2 * columns * depth * (rows + rates.half_depth) / rates.flops
    moved = (rates.bytes * rows * (columns + depth) + 8 * columns * depth) / rates.bandwidth
    weights = rates.launch + _both(work, moved)
    forward = product(rates, rows, columns, depth)
    return forward + product(rates, rows, depth, columns) + weights, forward


def grouped_product(rates: Rates, groups: Size, rows: Size, columns: Size, depth: Size) -> Size:
    """`groups` forward products of `rows` rows each [s]."""
    columns, depth = _columns(columns), _columns(depth)
    work = 2 * groups * (rows + TILE / 2) * columns * (depth + rates.half_depth) / rates.grouped_flops
    moved = groups * (rates.bytes * depth * (rows + columns) + 2 * rows * columns) / rates.bandwidth
    return _both(work, moved)


def trained_grouped_product(rates: Rates, groups: Size, rows: Size, columns: Size, depth: Size) -> tuple[Size, Size]:
    """`groups` products with both gradients, of which each of the three starts every group, 2 us; and the products
    alone [s]."""
    columns, depth = _columns(columns), _columns(depth)
    work = 2 * groups * columns * depth * (rows + TILE / 2 + rates.half_depth) / rates.grouped_flops
    moved = groups * (rates.bytes * rows * (columns + depth) + 8 * columns * depth) / rates.bandwidth
    forward = grouped_product(rates, groups, rows, columns, depth)
    backward = grouped_product(rates, groups, rows, depth, columns) + _both(work, moved) + 3 * 2e-6 * groups
    return forward + backward, forward


def attention_forward(rates: Rates, flops: Size, seq_len: Size, head_dim: Size) -> Size:
    """Scores and weighted values of `flops` FLOPs over sequences of `seq_len` [s]."""
    width = np.clip((head_dim - 64) / 64, 0, 1)
    rate = rates.attention_flops * seq_len / (seq_len + rates.half_seq_len)
    return flops / (rate * (rates.narrow_heads + (1 - rates.narrow_heads) * width))
