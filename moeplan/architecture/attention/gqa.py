"""Grouped-query attention (Ainslie et al., arXiv 2305.13245), multi-head and multi-query attention among it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from moeplan.architecture.attention.kind import Activation, Attention, Matrix, Size, ceil_div
from moeplan.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class GroupedQueryAttention(Attention):
    """Softmax attention whose heads share keys and values in groups."""

    kind: ClassVar[str] = "gqa"
    label: ClassVar[str] = "grouped-query attention"

    num_heads: Size
    """Query heads."""
    num_kv_heads: Size
    """Key-value heads."""
    head_dim: Size
    """Width of one head [features]."""
    qkv_bias: bool = False
    """Bias on the query, key and value maps."""
    output_bias: bool = False
    """Bias on the output map."""
    attention_sinks: bool = False
    """One learned sink logit a head."""
    qk_norm: Literal["none", "head", "full"] = "none"
    """Norm of queries and keys: none, one weight vector of head_dim, or over the full width."""

    @classmethod
    def complete(cls, fields: dict[str, Any]) -> dict[str, Any]:
        if fields["head_dim"]:
            return {}
        d_model, num_heads = fields["d_model"], fields["num_heads"]
        if d_model % num_heads:
            raise UsageError(f"num_heads {num_heads} must divide d_model {d_model} without a head_dim")
        return {"head_dim": d_model // num_heads}

    @classmethod
    def planned(cls, d_model: int, num_heads: Size, head_dim: int) -> dict[str, Any]:
        """A quarter as many KV heads, 8 from 32 heads on; norms on queries and keys."""
        import numpy as np  # where the search needs it, so that a command's help starts without it

        kv_heads = np.where(num_heads >= 32, 8, np.maximum(num_heads // 4, 1))
        return {"num_kv_heads": kv_heads, "head_dim": head_dim, "qk_norm": "head"}

    @property
    def _kv_width(self) -> Size:
        return self.num_kv_heads * self.head_dim

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Query, key, value and output."""
        query, kv = self.width, self._kv_width
        return [(d_model, query), (d_model, kv), (d_model, kv), (query, d_model)]

    def vectors(self, d_model: Size) -> Size:
        params = 0
        if self.qkv_bias:
            params = params + self.width + 2 * self._kv_width
        if self.output_bias:
            params = params + d_model
        if self.attention_sinks:
            params = params + self.num_heads
        if self.qk_norm == "head":
            params = params + 2 * self.head_dim
        elif self.qk_norm == "full":
            params = params + self.width + self._kv_width
        return params

    def stored_matrices(self, d_model: Size) -> list[Matrix]:
        """Query, key and value as one, and output."""
        return [(self.width + 2 * self._kv_width, d_model), (d_model, self.width)]

    @property
    def width(self) -> Size:
        return self.num_heads * self.head_dim

    @property
    def cached_width(self) -> Size:
        """Keys and values: 2*num_kv_heads*head_dim."""
        return 2 * self._kv_width

    def on_device(self, n: int) -> Self:
        """Heads are split; KV heads too, and copied where there are fewer than devices."""
        heads, kv_heads = ceil_div(self.num_heads, n), ceil_div(self.num_kv_heads, n)
        return dataclasses.replace(self, num_heads=heads, num_kv_heads=kv_heads)

    def split_problem(self, n: int) -> str:
        if self.num_kv_heads % n and n % self.num_kv_heads:
            return f"tp {n} must divide num_kv_heads {self.num_kv_heads} or be a multiple of it"
        return ""

    @property
    def passed_width(self) -> Size:
        return 2 * self._kv_width

    def activations(self) -> list[Activation]:
        before = [Activation("queries and keys before their norm", self.width + self._kv_width)]
        return [
            *(before if self.qk_norm != "none" else []),
            Activation("queries", self.width),
            Activation("keys", self._kv_width),
            Activation("values", self._kv_width),
            Activation("attention output", self.width),
            Activation("softmax statistics", self.num_heads, fp32=True),
        ]

    @property
    def gradient_widths(self) -> tuple[Size, Size]:
        return self.width, 2 * self.width + 2 * self._kv_width

    def words(self) -> str:
        return f"{self.num_heads} heads of {self.head_dim}, {self.num_kv_heads} KV heads"
