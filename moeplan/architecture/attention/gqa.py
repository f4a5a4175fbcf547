"""Grouped-query attention (Ainslie et al., arXiv 2305.13245), multi-head and multi-query attention among it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from moeplan.architecture.attention.kind import Activation, Attention, Matrix, Size, ceil_div
from moeplan.errors import UsageError
from moeplan.records import Word


@dataclass(frozen=True, kw_only=True)
class GroupedQueryAttention(Attention):
    """Softmax attention whose heads share keys and values in groups."""

    kind: Word = field(init=False, default="gqa")
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
    v_head_dim: Size = 0
    """Width of a head's value [features]; 0 stands for head_dim."""
    gate: Literal["none", "head", "full"] = "none"
    """Gate on the output, from the block's input: none, one number a head, or as wide as the output."""
    gate_in_query: bool = False
    """Whether the gate is a part of the query map, with its biases where that has them."""
    gate_bias: bool = False
    """One bias a head on the gate."""
    window: int = 0
    """Tokens that a token sees, itself among them; 0 for all before it."""
    chunked: bool = False
    """Whether tokens see their own chunk of `window` tokens alone, in place of a sliding window."""
    values_are_keys: bool = False
    """Whether values are the keys before their norm, with no map of their own."""
    shares_kv: bool = False
    """Whether keys and values are those of a block before, with no maps and no cache of its own."""
    query_rank: int = 0
    """Features that queries go through, with a norm (MFA, Step-3, arXiv 2507.19427); 0 for none."""
    index_heads: int = 0
    """Heads of an indexer that picks the tokens to attend to (MiniMax-M3); 0 without one."""
    index_head_dim: int = 0
    """Width of one of them, and of its one key [features]."""
    index_topk: int = 0
    """Tokens that it picks."""
    index_pool: int = 0
    """Tokens whose scores it joins; 0 where it scores each."""

    @classmethod
    def of(cls, shape: Any) -> Self:
        """The fields that `shape` has; what it calls v_head_dim is another kind's."""
        return dataclasses.replace(super().of(shape), v_head_dim=0)

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
    def _query_width(self) -> Size:
        return self.num_heads * self.head_dim

    @property
    def _key_width(self) -> Size:
        return self.num_kv_heads * self.head_dim

    @property
    def _value_width(self) -> Size:
        return self.num_kv_heads * (self.v_head_dim or self.head_dim)

    @property
    def _gate_width(self) -> Size:
        return {"none": 0, "head": self.num_heads, "full": self.width}[self.gate]

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Query, key, value, output, and the gate's."""
        widths = [self._query_width]
        if not self.shares_kv:
            widths += [self._key_width] if self.values_are_keys else [self._key_width, self._value_width]
        if self.gate != "none":
            widths.append(self._gate_width)
        if self.query_rank:
            widths[0] = self.query_rank
        if self.index_heads:
            widths += [self.index_heads * self.index_head_dim, self.index_head_dim]
        queries = [(self.query_rank, self._query_width)] if self.query_rank else []
        return [*((d_model, width) for width in widths), *queries, (self.width, d_model)]

    def vectors(self, d_model: Size) -> Size:
        params = 0
        if self.qkv_bias:
            params = params + self._query_width + self.gate_in_query * self._gate_width
            params = params if self.shares_kv else params + self._key_width + self._value_width
        if self.output_bias:
            params = params + d_model
        if self.attention_sinks:
            params = params + self.num_heads
        if self.qk_norm == "head":
            params = params + (1 if self.shares_kv else 2) * self.head_dim
        elif self.qk_norm == "full":
            params = params + self._query_width + (0 if self.shares_kv else self._key_width)
        if self.gate_bias:
            params = params + self.num_heads
        return params + self.query_rank + 2 * self.index_head_dim  # norms of the indexer's queries and key

    def stored_matrices(self, d_model: Size) -> list[Matrix]:
        """Query, key and value as one, and output."""
        if self.query_rank:
            return super().stored_matrices(d_model)
        *inputs, output = self.matrices(d_model)
        return [(sum(width for _, width in inputs), d_model), (d_model, output[0])]

    @property
    def width(self) -> Size:
        return self.num_heads * (self.v_head_dim or self.head_dim)

    @property
    def cached_width(self) -> Size:
        """Keys and values: 2*num_kv_heads*head_dim where they are equally wide; and the indexer's key."""
        return (0 if self.shares_kv else self._key_width + self._value_width) + self.index_head_dim

    def cached_tokens(self, context: int) -> int:
        """No more than the window."""
        return min(context, self.window) if self.window else context

    def score_flops(self, seq_len: Size, *, causal: bool = False) -> Size:
        """12*width times the tokens that a token sees: half of all before it on average, the window once it is full.

        Of a block with an indexer those that it picks, and its own scores of all before.
        """
        if self.index_topk and self.index_topk < seq_len:
            picked, indexed = self.index_topk, seq_len // 2 if causal else seq_len
            seen = picked * (2 * seq_len - picked) // (2 * seq_len) if causal else picked
            return 12 * self.width * seen + 3 * self._index_flops(indexed)
        if not self.window or self.window >= seq_len:
            return super().score_flops(seq_len, causal=causal)
        if self.chunked or not causal:
            return super().score_flops(self.window, causal=causal)
        return 6 * self.width * self.window * (2 * seq_len - self.window) // seq_len

    def _index_flops(self, seen: Size) -> Size:
        """FLOPs of the indexer's scores of `seen` tokens."""
        return 2 * self.index_heads * self.index_head_dim * seen // (self.index_pool or 1)

    def decode_flops(self, context: int) -> Size:
        if self.index_topk and self.index_topk < context:
            return super().decode_flops(self.index_topk) + self._index_flops(context)
        return super().decode_flops(self.cached_tokens(context))

    def prefill_flops(self, prompt: int) -> Size:
        return self.score_flops(prompt, causal=True) * prompt // 3

    def on_device(self, n: int) -> Self:
        """Heads are split; KV heads too, and copied where there are fewer than devices."""
        heads, kv_heads = ceil_div(self.num_heads, n), ceil_div(self.num_kv_heads, n)
        return dataclasses.replace(self, num_heads=heads, num_kv_heads=kv_heads)

    def splits(self, n: int) -> Size:
        return (self.num_kv_heads % n == 0) | (n % self.num_kv_heads == 0)

    def split_problem(self, n: int) -> str:
        if not self.splits(n):
            return f"tp {n} must divide num_kv_heads {self.num_kv_heads} or be a multiple of it"
        return ""

    @property
    def passed_width(self) -> Size:
        return self._key_width + self._value_width

    def activations(self) -> list[Activation]:
        before = [Activation("queries and keys before their norm", self._query_width + self._key_width)]
        latent = [Activation("query latent", self.query_rank), Activation("query latent norm output", self.query_rank)]
        return [
            *(latent if self.query_rank else []),
            *(before if self.qk_norm != "none" else []),
            Activation("queries", self._query_width),
            Activation("keys", self._key_width),
            Activation("values", self._value_width),
            Activation("attention output", self.width),
            *([Activation("gate", self._gate_width)] if self.gate != "none" else []),
            Activation("softmax statistics", self.num_heads, fp32=True),
        ]

    @property
    def gradient_widths(self) -> tuple[Size, Size]:
        return self._query_width, self._query_width + self.width + self.passed_width

    def words(self) -> str:
        window = f", in a window of {self.window}" if self.window else ""
        return f"{self.num_heads} heads of {self.head_dim}, {self.num_kv_heads} KV heads{window}"
