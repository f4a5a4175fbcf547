"""Attention to a window and to compressed tokens before it (DeepSeek-V4): one key-value head, queries from a latent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, Self

from moeplan.architecture.attention.kind import Activation, Attention, Matrix, Size, ceil_div
from moeplan.records import Word


@dataclass(frozen=True, kw_only=True)
class CompressedAttention(Attention):
    """Softmax attention to the last `window` tokens and to one entry for every `compress_rate` tokens before.

    With overlap each entry joins two runs of tokens and an indexer picks `index_topk` of them (compressed sparse
    attention); without, all entries are seen (heavily compressed attention). Keys are values. The output map goes
    through `output_rank` features for each of `output_groups` groups of heads. As transformers' DeepseekV4Attention.
    """

    kind: Word = field(init=False, default="compressed")
    label: ClassVar[str] = "compressed attention"

    num_heads: Size
    """Query heads."""
    head_dim: Size
    """Width of one head, of the key and of an entry [features]."""
    q_lora_rank: int
    """Rank of the query map."""
    output_groups: int
    """Groups of heads in the output map."""
    output_rank: int
    """Width that each of them is mapped to [features]."""
    window: int
    """Tokens that are seen whole."""
    compress_rate: int = 0
    """Tokens that make one entry; 0 for the window alone."""
    overlap: bool = False
    """Whether an entry joins this run of tokens and the one before."""
    index_heads: int = 0
    """Heads of the indexer; 0 without one."""
    index_head_dim: int = 0
    """Width of one of them, and of its one key [features]."""
    index_topk: int = 0
    """Entries that it picks."""

    @property
    def width(self) -> Size:
        return self.num_heads * self.head_dim

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Queries through their latent; key; output in groups; entries and their gates; the indexer's own of them."""
        groups, middle = self.output_groups, self.output_groups * self.output_rank
        found = [(d_model, self.q_lora_rank), (self.q_lora_rank, self.width), (d_model, self.head_dim)]
        found += [(self.width // groups, middle), (middle, d_model)]
        if self.compress_rate:
            found += 2 * [(d_model, (1 + self.overlap) * self.head_dim)]
        if self.index_heads:
            found += 2 * [(d_model, (1 + self.overlap) * self.index_head_dim)]
            found += [(self.q_lora_rank, self.index_heads * self.index_head_dim), (d_model, self.index_heads)]
        return found

    def vectors(self, d_model: Size) -> Size:
        """Norms of latent and key, sinks; a bias by place, and a norm, for entries and the indexer's."""
        params = self.q_lora_rank + self.head_dim + self.num_heads
        for width in (self.head_dim if self.compress_rate else 0, self.index_head_dim if self.index_heads else 0):
            params = params + (self.compress_rate * (1 + self.overlap) + 1) * width
        return params

    @property
    def cached_width(self) -> Size:
        """What one more token adds in the long run: its share of an entry and of the indexer's."""
        return ceil_div(self.head_dim + self.index_head_dim, self.compress_rate) if self.compress_rate else 0

    def cached_numbers(self, context: int) -> Size:
        """Keys of the window, entries and the indexer's of all tokens."""
        entries = context // self.compress_rate if self.compress_rate else 0
        return min(context, self.window) * self.head_dim + entries * (self.head_dim + self.index_head_dim)

    def _seen(self, context: int) -> Size:
        entries = context // self.compress_rate if self.compress_rate else 0
        return min(context, self.window) + (min(entries, self.index_topk) if self.index_heads else entries)

    def _index_flops(self, context: int) -> Size:
        return 2 * self.index_heads * self.index_head_dim * (context // self.compress_rate if self.compress_rate else 0)

    def score_flops(self, seq_len: Size, *, causal: bool = False) -> Size:
        """12*width times what a token sees, at the mean context where causal; and the indexer's scores of entries."""
        context = seq_len // 2 if causal else seq_len
        return 12 * self.width * self._seen(context) + 3 * self._index_flops(context)

    def decode_flops(self, context: int) -> Size:
        return 4 * self.width * self._seen(context) + self._index_flops(context)

    def prefill_flops(self, prompt: int) -> Size:
        return self.score_flops(prompt, causal=True) * prompt // 3

    def on_device(self, n: int) -> Self:
        """Heads are split with their groups; latent and key are on every device."""
        return dataclasses.replace(
            self, num_heads=ceil_div(self.num_heads, n), output_groups=ceil_div(self.output_groups, n)
        )

    @property
    def passed_width(self) -> Size:
        return self.head_dim

    def activations(self) -> list[Activation]:
        """Query latent, queries, the key, entries before they are joined and their gates, and the output's groups."""
        latent = Activation("query latent", self.q_lora_rank, split=True)
        return [
            latent,
            latent._replace(name="query latent norm output"),
            Activation("queries", self.width),
            Activation("keys", self.head_dim),
            Activation("entries and their gates", self._entry_width),
            Activation("attention output", self.width),
            Activation("grouped output", self.output_groups * self.output_rank),
            Activation("softmax statistics", self.num_heads, fp32=True),
        ]

    @property
    def _entry_width(self) -> Size:
        joined = self.head_dim * (self.compress_rate > 0) + self.index_head_dim * (self.index_heads > 0)
        return 2 * (1 + self.overlap) * joined

    @property
    def gradient_widths(self) -> tuple[Size, Size]:
        return self.width, 2 * self.width + self.head_dim + self._entry_width

    def words(self) -> str:
        seen = f"{self.index_topk} entries" if self.index_heads else "all entries"
        entries = f" and {seen} of {self.compress_rate} tokens each" if self.compress_rate else ""
        return f"{self.num_heads} heads of {self.head_dim} that see {self.window} tokens{entries}"
