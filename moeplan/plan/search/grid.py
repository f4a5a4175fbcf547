"""The grid of architectures the search runs over: declared axes, divisibility rules, blocks of designs as arrays.

A design is one integer architecture of the grid. The axes (`Grid`) are declared; `Grid.block(d_model)` multiplies them
out for one width, drops what the rules forbid and returns `Designs` (see `moeplan.plan.search.designs`).

Rules: d_model is a multiple of 128 (64 below 1024), d_expert of 64 (16 below d_model 1024), num_experts of 8; heads are
128 wide (64 below d_model 1024), a multiple of 4 (of 8 from 32 on), with a quarter as many KV heads and at most 8; the
first layer is dense, unless told otherwise, with d_ff = (active + shared)*d_expert; depths are whole runs of a pattern
of attention. With a latent width d_model/a there are a times as many experts, of which a times as many are active, at
equal cost (LatentMoE, arXiv 2601.18089); beside grouped-query attention they are as Nemotron-3-Super's, without gates
and norms of heads.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from moeplan.architecture import counting
from moeplan.architecture.blocks import UNIFORM, Blocks
from moeplan.architecture.patterns import Pattern, pattern_named
from moeplan.architecture.proportions import SMALL_D_MODEL, attention_fields, head_dim
from moeplan.architecture.shape import Architecture
from moeplan.plan.search.designs import Cells, Designs, Ints, Table

AXES = (
    "d_model", "num_layers", "num_heads", "num_experts", "num_active_experts", "num_shared_experts", "d_expert",
    "num_dense_layers",
)  # fmt: skip
"""The fields that tell designs of one grid apart, in the order of the last tie-break."""
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Architecture) if f.default is not dataclasses.MISSING}


def _pieces(*pieces: tuple[int, int, int]) -> tuple[int, ...]:
    """Values of (start, stop, step) pieces in a row; the last stop is included."""
    values = [value for start, stop, step in pieces for value in range(start, stop, step)]
    return (*values, pieces[-1][1])


def _geometric(low: float, high: float, per_octave: int) -> tuple[float, ...]:
    count = round(float(np.log2(high / low)) * per_octave)
    return tuple(float(low * 2 ** (i / per_octave)) for i in range(count + 1))


def _halve(values: tuple[Any, ...], multiple: int = 0) -> tuple[Any, ...]:
    """Put a value between each two neighbours: the middle, or the multiple of `multiple` nearest to it."""
    between = [(a + b) / 2 for a, b in itertools.pairwise(values)]
    if multiple:
        between = [round(x / multiple) * multiple for x in between]
    return tuple(sorted({*values, *between}))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The axes of the search. The defaults are the declared grid; `dataclasses.replace` narrows or widens it."""

    d_model: tuple[int, ...] = _pieces((384, 1024, 64), (1024, 4096, 128), (4096, 8192, 256), (8192, 14336, 1024))
    """Widths of the residual stream [features]."""
    aspect_ratio: tuple[float, ...] = (48, 56, *range(64, 113, 6))
    """d_model / num_layers before rounding of num_layers; below 64 only for d_model up to 1024."""
    min_layers: int = 8
    """Fewest blocks."""
    max_layers: int = 128
    """Most blocks."""
    num_layers: tuple[int, ...] = ()
    """Depths in place of `aspect_ratio`'s (but within its ends), if not empty."""
    num_experts: tuple[int, ...] = _pieces((16, 256, 8), (256, 448, 16), (448, 512, 8))
    """Routed experts a layer; above 256 only from d_model 1024 on."""
    num_active_experts: tuple[int, ...] = (4, 5, 6, 7, 8, 10, 12)
    """Routed experts a token reaches."""
    num_shared_experts: tuple[int, ...] = (1,)
    """Shared experts."""
    granularity: tuple[float, ...] = _geometric(2, 16, 6)
    """2*d_model/d_expert before rounding of d_expert."""
    d_expert: tuple[int, ...] = ()
    """Expert widths [features] in place of `granularity`'s, if not empty."""
    num_dense_layers: tuple[int, ...] = (1,)
    """First layers without experts: none, or one."""
    num_heads: tuple[int, ...] = ()
    """Query heads in place of those within `attention_width`, if not empty."""
    attention_width: tuple[float, float] = (1.0, 1.25)
    """Range of d_attn / d_model = num_heads*head_dim / d_model."""
    attention_share: tuple[float, float] = (0.25, 0.45)
    """Range of attention's share of a MoE block's FLOPs (see `attention_share`)."""
    min_activation_ratio: float = 0.008
    """Least num_active_experts / num_experts."""
    shared_ratio: tuple[float, float] = (0.0, 1.0)
    """Range of shared / (active + shared) experts."""
    G: tuple[float, float] = (0.0, 1e9)
    """Range of active + shared experts."""
    vocab_size: int = 131072
    """Rows of the embedding."""
    tied_embeddings: bool = False
    """Whether the output head is the embedding."""
    seq_len: int = 4096
    """Training sequence length [tokens]."""
    attention: str = "gqa"
    """Pattern of attention, a word of `moeplan.architecture.patterns`."""
    latent: int = 1
    """d_model over the width that experts work in; the axes of experts are those of the plain model of equal cost."""

    @cached_property
    def pattern(self) -> Pattern:
        """The pattern of attention."""
        return pattern_named(self.attention)

    @cached_property
    def blocks(self) -> Blocks:
        """What blocks have beside their attention."""
        ungated = self.latent > 1 and self.attention == "gqa"
        return dataclasses.replace(self.pattern.blocks, gated=False) if ungated else self.pattern.blocks

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the declared axes, first 16 hex digits."""
        axes = dataclasses.asdict(self)
        for name in ("latent", "num_dense_layers"):  # as before there were these
            if axes[name] == getattr(Grid, name):
                del axes[name]
        return hashlib.sha256(json.dumps(axes, sort_keys=True).encode()).hexdigest()[:16]

    def halved(self) -> Grid:
        """The grid with every step halved, as far as divisibility allows."""
        small = [d for d in self.d_model if d <= SMALL_D_MODEL]
        large = [d for d in self.d_model if d >= SMALL_D_MODEL]
        return dataclasses.replace(
            self,
            d_model=tuple(sorted({*_halve(tuple(small), 64), *_halve(tuple(large), 128)})),
            aspect_ratio=_halve(self.aspect_ratio),
            num_experts=_halve(self.num_experts, 8),
            num_active_experts=_halve(self.num_active_experts, 1),
            num_shared_experts=_halve(self.num_shared_experts, 1),
            granularity=tuple(float(np.exp(x)) for x in _halve(tuple(np.log(self.granularity)))),
        )

    def layers(self, d_model: int) -> Ints:
        """Depths at one width."""
        aspects = [a for a in self.aspect_ratio if a >= 64 or d_model <= SMALL_D_MODEL]
        if not aspects:
            return np.array([], dtype=np.int64)
        run = self.pattern.period
        depths = {max(int(d_model / a / run + 0.5), 1) * run for a in aspects}
        if self.num_layers:
            inside = range(min(depths), max(depths) + 1)
            depths = {depth for depth in self.num_layers if depth in inside and depth % run == 0}
        return np.array(sorted(x for x in depths if self.min_layers <= x <= self.max_layers), dtype=np.int64)

    def heads(self, d_model: int) -> Ints:
        """Numbers of query heads at one width."""
        if self.num_heads:
            return np.array(sorted(self.num_heads), dtype=np.int64)
        center = d_model / head_dim(d_model)
        low, high = (share * center for share in self.attention_width)
        allowed = [h for h in range(4, int(high) + 9, 4) if h < 32 or h % 8 == 0]
        inside = [h for h in allowed if low <= h <= high]
        return np.array(inside or [min(allowed, key=lambda h: abs(h - center))], dtype=np.int64)

    def expert_widths(self, d_model: int) -> Ints:
        """Expert widths at one width of the model [features]."""
        if self.d_expert:
            return np.array(sorted(self.d_expert), dtype=np.int64)
        step = 16 if d_model < SMALL_D_MODEL else 64
        widths = {max(step, round(2 * d_model / g / step) * step) for g in self.granularity}
        return np.array(sorted(widths), dtype=np.int64)

    def block(self, d_model: int) -> Designs | None:
        """Every design of one width that the rules allow, as arrays of one length; None if there is none."""
        designs = self.product(d_model)
        return None if designs is None else designs.take(np.arange(len(designs)))

    def product(self, d_model: int) -> Table | None:
        """The same designs in the same order as a table of depths (rows) and of everything else (columns)."""
        layers, experts = self.layers(d_model), self._experts(d_model)[None]
        h, k, s, f, dense, share = (axis[:, None] for axis in self._rows(d_model))
        allowed = (k < experts) & (k >= self.min_activation_ratio * experts)
        if len(layers) == 0 or not allowed.any():
            return None
        cells = Cells(
            _DEFAULTS
            | self._attention_fields(d_model, h)
            | {
                "pattern": self.pattern, "blocks": self.blocks, "d_latent": d_model // self.latent * (self.latent > 1),
                "num_dense_layers": dense if len(self.num_dense_layers) > 1 else self.num_dense_layers[0],
                "num_experts": experts, "num_active_experts": k, "num_shared_experts": s, "d_expert": f,
                "d_shared_expert": f, "d_ff": (k // self.latent + s) * f, "vocab_size": self.vocab_size,
                "tied_embeddings": self.tied_embeddings, "attention_share": share,
            }
        )  # fmt: skip
        return Table(layers, cells, allowed)

    def most_designs(self) -> int:
        """No fewer than the designs of the whole grid, found without building them."""
        return sum(len(self.layers(d)) * len(self._experts(d)) * len(self._rows(d)[0]) for d in self.d_model)

    def values(self, name: str) -> list[float]:
        """The values of a design variable that this grid has, for those that need no counting; else none."""
        found: set[float] = set()
        for d in self.d_model:
            h, k, s, f, dense, share = self._rows(d)
            if not len(h) or not len(self.layers(d)):
                continue
            columns = {
                "d_model": np.array([d]), "num_layers": self.layers(d), "num_experts": self._experts(d),
                "num_heads": h, "num_active_experts": k, "num_shared_experts": s, "d_expert": f,
                "G": k // self.latent + s, "shared_ratio": s / (k // self.latent + s), "granularity": 2 * d / f,
                "num_dense_layers": dense, "attention_share": share,
            }  # fmt: skip
            found.update(columns.get(name, np.empty(0)).tolist())
        return sorted(found)

    def _experts(self, d_model: int) -> Ints:
        few = 256 * self.latent
        return np.array([e for e in self.num_experts if e <= few or d_model >= SMALL_D_MODEL], dtype=np.int64)

    def _attention_fields(self, d_model: int, num_heads: Any) -> dict[str, Any]:
        fields = attention_fields(d_model, num_heads, self.attention)
        return fields if self.blocks.gated else fields | {"qk_norm": "none"}

    @cached_property
    def _known_rows(self) -> dict[int, tuple[Any, ...]]:
        return {}

    def _rows(self, d_model: int) -> tuple[Any, ...]:
        """Heads, active and shared experts, expert widths and dense layers that go together at one width, and
        attention's share."""
        if d_model not in self._known_rows:
            self._known_rows[d_model] = self._make_rows(d_model)
        return self._known_rows[d_model]

    def _make_rows(self, d_model: int) -> tuple[Any, ...]:
        experts = self.num_active_experts, self.num_shared_experts, self.expert_widths(d_model)
        axes = self.heads(d_model), *experts, self.num_dense_layers
        h, k, s, f, dense = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
        plain = k // self.latent
        total, shared = plain + s, s / (plain + s)
        kept = (self.G[0] <= total) & (total <= self.G[1])
        kept &= (self.shared_ratio[0] <= shared) & (shared <= self.shared_ratio[1])
        h, k, s, f, dense = h[kept], k[kept], s[kept], f[kept], dense[kept]
        fields = self._attention_fields(d_model, h)
        share = attention_share(fields, (total[kept]) * f, self.seq_len, self.pattern, self.blocks)
        kept = (self.attention_share[0] <= share) & (share <= self.attention_share[1])
        return h[kept], k[kept], s[kept], f[kept], dense[kept], share[kept]


def attention_share(
    fields: dict[str, Any], active_width: Any, seq_len: int, pattern: Pattern, blocks: Blocks = UNIFORM
) -> Any:
    """Attention's share of the training FLOPs of MoE blocks, one run of the pattern: no mask, no router, no norms.

    `active_width` is (active + shared experts)*d_expert [features], of the plain model of equal cost.
    """
    shape = SimpleNamespace(**{**_DEFAULTS, **fields, "num_layers": pattern.period})
    shape.attentions = pattern.attentions(shape)
    flops = 6 * counting.attention_params(shape) + counting.attention_score_flops(shape, seq_len)
    return flops / (flops + 6 * pattern.period * counting.ffn_params(shape.d_model, active_width, gated=blocks.gated))
