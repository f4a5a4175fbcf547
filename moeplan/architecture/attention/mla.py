"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from moeplan.architecture.attention.kind import Activation, Attention, Matrix, Size, ceil_div
from moeplan.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class LatentAttention(Attention):
    """Softmax attention whose keys and values come from one cached latent and one shared rotary key."""

    kind: str = field(init=False, default="mla")
    label: ClassVar[str] = "multi-head latent attention"

    num_heads: Size
    """Heads."""
    q_lora_rank: int = 0
    """Rank of the query map; 0 is a straight map."""
    kv_lora_rank: Size
    """Width of the cached latent [features]."""
    qk_nope_head_dim: Size
    """Width of a head's score without rotary position [features]."""
    qk_rope_head_dim: Size = 0
    """Width of the rotary key that all heads share [features]."""
    v_head_dim: Size
    """Width of a head's value [features]."""
    latent_norm: bool = True
    """Whether the latents have norms."""
    gate: Literal["none", "head", "full"] = "none"
    """Gate on the output, from the block's input: none, one number a head, or as wide as the output."""
    index_heads: int = 0
    """Heads of the indexer that picks the tokens to attend to (DeepSeek-V3.2, arXiv 2512.02556); 0 without one."""
    index_head_dim: int = 0
    """Width of one of them [features]."""
    index_topk: int = 0
    """Tokens that it picks."""

    @classmethod
    def complete(cls, fields: dict[str, Any]) -> dict[str, Any]:
        for name in ("kv_lora_rank", "qk_nope_head_dim", "v_head_dim"):
            if fields[name] < 1:
                raise UsageError(f"{name} 0 must be at least 1 for MLA attention")
        return {} if fields["head_dim"] else {"head_dim": fields["v_head_dim"]}

    @classmethod
    def planned(cls, d_model: int, num_heads: Size, head_dim: int) -> dict[str, Any]:
        """The ranks of DeepSeek-V3 (arXiv 2412.19437); a straight query map below d_model 4096 as in V2-Lite."""
        rank = 1536 if d_model >= 4096 else 0
        ranks = {"q_lora_rank": rank, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64}
        return {**ranks, "v_head_dim": 128, "head_dim": 128, "num_kv_heads": num_heads}

    @property
    def _score_width(self) -> Size:
        return self.num_heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)

    @property
    def _up(self) -> Matrix:
        """The map from the latent to the keys and values of all heads."""
        return self.kv_lora_rank, self.num_heads * (self.qk_nope_head_dim + self.v_head_dim)

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Queries straight or through their latent; the latent with the rotary key; keys and values; output."""
        rank = self.q_lora_rank
        queries = [(d_model, rank), (rank, self._score_width)] if rank else [(d_model, self._score_width)]
        down = (d_model, self.kv_lora_rank + self.qk_rope_head_dim)
        gates = {"none": [], "head": [(d_model, self.num_heads)], "full": [(d_model, self.width)]}[self.gate]
        return [*queries, down, self._up, *gates, *self._indexer(d_model), (self.width, d_model)]

    def _indexer(self, d_model: Size) -> list[Matrix]:
        """Its queries, from the query latent, its one key and the weights of its heads."""
        if not self.index_heads:
            return []
        keys, weights = (d_model, self.index_head_dim), (d_model, self.index_heads)
        return [(self.q_lora_rank or d_model, self.index_heads * self.index_head_dim), keys, weights]

    def vectors(self, d_model: Size) -> Size:
        """Norms of the latents, and weight and bias of the norm on the indexer's key."""
        return self.latent_norm * (self.q_lora_rank + self.kv_lora_rank) + 2 * self.index_head_dim

    @property
    def width(self) -> Size:
        """num_heads*v_head_dim: the rotary part of the scores is left out, as in published FLOP counts."""
        return self.num_heads * self.v_head_dim

    @property
    def cached_width(self) -> Size:
        """The latent and the shared rotary key (the same paper, section 2.1.4), and the indexer's key."""
        return self.kv_lora_rank + self.qk_rope_head_dim + self.index_head_dim

    def _index_flops(self, seen: Size) -> Size:
        """FLOPs of the indexer's scores of `seen` tokens."""
        return 2 * self.index_heads * self.index_head_dim * seen

    def score_flops(self, seq_len: Size, *, causal: bool = False) -> Size:
        """Of the tokens that the indexer picks, where there is one, and of its own scores of all before."""
        if not self.index_heads:
            return super().score_flops(seq_len, causal=causal)
        picked = min(self.index_topk, seq_len)
        seen = picked * (2 * seq_len - picked) // (2 * seq_len) if causal else picked
        return 12 * self.width * seen + 3 * self._index_flops(seq_len // 2 if causal else seq_len)

    def decode_flops(self, context: int) -> Size:
        """With the up-projections absorbed (section 2.1.2): 2*heads*(2*kv_lora_rank + rope)*context."""
        seen = min(self.index_topk, context) if self.index_heads else context
        width = 2 * self.kv_lora_rank + self.qk_rope_head_dim
        return 2 * self.num_heads * width * seen + self._index_flops(context)

    def prefill_flops(self, prompt: int) -> Size:
        return self.score_flops(prompt, causal=True) * prompt // 3

    def on_device(self, n: int) -> Self:
        """Heads are split; the maps into the latents and the cache are on every device."""
        return dataclasses.replace(self, num_heads=ceil_div(self.num_heads, n))

    @property
    def passed_width(self) -> Size:
        return self._score_width + self.width

    def activations(self) -> list[Activation]:
        """The outputs of the up-projections can be computed again from the latents."""
        latent = Activation("query latent", self.q_lora_rank, split=True)
        queries = [latent, latent._replace(name="query latent norm output")] if self.q_lora_rank else []
        return [
            *queries,
            Activation("key-value latent", self.kv_lora_rank + self.qk_rope_head_dim, split=True),
            Activation("key-value latent norm output", self.kv_lora_rank, split=True),
            Activation("queries", self._score_width, recomputed=True),
            Activation("keys", self._score_width, recomputed=True),
            Activation("values", self.width, recomputed=True),
            Activation("attention output", self.width),
            Activation("softmax statistics", self.num_heads, fp32=True),
        ]

    @property
    def gradient_widths(self) -> tuple[Size, Size]:
        return self._score_width, 2 * self._score_width + 2 * self.width

    def recomputed_params(self, d_model: Size) -> Size:
        """The up-projections."""
        rank, width = self._up
        return (self.q_lora_rank or d_model) * self._score_width + rank * width

    def words(self) -> str:
        queries = f", queries from one of {self.q_lora_rank}" if self.q_lora_rank else ""
        return (
            f"{self.num_heads} heads of {self.qk_nope_head_dim}+{self.qk_rope_head_dim} by MLA "
            f"(latent of {self.kv_lora_rank}{queries})"
        )
