"""The usual proportions of a model: heads by width, attention's fields by kind, and dense shapes of any size."""

from __future__ import annotations

import dataclasses
import functools
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import numpy as np

from moeplan.architecture.patterns import pattern_named
from moeplan.architecture.shape import Architecture

SMALL_D_MODEL = 1024
"""Below this width the finer rules for small models hold."""
DENSE_WIDTHS = range(128, SMALL_D_MODEL, 64), range(SMALL_D_MODEL, 65536, 128)
"""Widths that dense models are given, by the width of their heads."""


def head_dim(d_model: int) -> int:
    """Width of one head at a width of the model [features]."""
    return 64 if d_model < SMALL_D_MODEL else 128


def attention_fields(d_model: int, num_heads: Any, attention: str) -> dict[str, Any]:
    """The fields of `Architecture` that the grid gives to a pattern of attention, by `Attention.planned`."""
    return pattern_named(attention).fields(d_model, num_heads, head_dim(d_model))


def nearest_dense(ratio: Callable[[Architecture], float], like: Architecture) -> Architecture:
    """The dense shape whose `ratio` (some size over what it should be) is nearest to 1, with vocabulary as `like`.

    The ratio must grow with width, of each kind of heads, and with depth.
    """

    def nearest(shapes: list[Architecture]) -> Architecture:
        return shapes[int(np.argmin(np.abs(np.log(np.array([ratio(shape) for shape in shapes])))))]

    # The width nearest at the usual aspect ratio, then the depth nearest at that width.
    beside: list[int] = []
    for widths in DENSE_WIDTHS:
        above = bisect_left(widths, 1.0, key=lambda width: ratio(dense_shape(width, like)))
        beside += widths[max(above - 1, 0) : above + 1]
    d_model = nearest([dense_shape(width, like) for width in beside]).d_model
    depths = range(max(1, round(d_model / 100)), max(1, round(d_model / 76)) + 1)
    return nearest([dense_shape(d_model, like, depth) for depth in depths])


def dense_shape(d_model: int, like: Architecture, num_layers: int = 0) -> Architecture:
    """A dense model of one width: d_ff = (8/3)*d_model, vocabulary and tying as `like`; 0 layers for d_model/88."""
    layers = num_layers or max(1, round(d_model / 88))
    return _dense_shape(d_model, layers, like.attention, like.vocab_size, like.tied_embeddings)


@functools.lru_cache(maxsize=4096)
def _dense_shape(d_model: int, num_layers: int, attention: str, vocab_size: int, tied: bool) -> Architecture:
    heads = max(1, d_model // head_dim(d_model))
    heads = max(4, round(heads / 4) * 4) if heads < 32 else round(heads / 8) * 8
    fields = attention_fields(d_model, np.int64(heads), attention)
    plain: dict[str, Any] = {name: value if isinstance(value, str) else int(value) for name, value in fields.items()}
    return Architecture(
        **plain,
        num_layers=num_layers,
        vocab_size=vocab_size,
        d_ff=max(64, round(8 / 3 * d_model / 64) * 64),
        tied_embeddings=tied,
    )


def dense_of_size(total_params: float, like: Architecture) -> Architecture:
    """The dense shape with params (embeddings included) nearest to `total_params`, vocabulary and tying as `like`.

    Width and depth come first, at the usual proportions; then d_ff, between 2 and 4 times d_model in steps of 64.
    """
    shape = nearest_dense(lambda shape: shape.total_params() / total_params, like)
    low, high = 2 * shape.d_model // 64, 4 * shape.d_model // 64
    widths = [dataclasses.replace(shape, d_ff=64 * step) for step in range(max(1, low), max(1, high) + 1)]
    return min(widths, key=lambda shape: abs(shape.total_params() - total_params))


def tokens_for(shape: Architecture, train_flops: float, seq_len: int) -> float:
    """Training tokens that `train_flops` by moeplan's count pay for."""
    return train_flops / float(shape.flops_per_token(seq_len))
