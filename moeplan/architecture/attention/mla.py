"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from moeplan.architecture.attention.kind import Activation, Attention, Matrix, Size, ceil_div
from moeplan.errors import UsageError
from moeplan.records import Word


@dataclass(frozen=True, kw_only=True)
class LatentAttention(Attention):
    """Softmax attention whose keys and values come from one cached latent and one shared rotary key."""

    kind: Word = field(init=False, default="mla")
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
    joint_gate: bool = False
    """Whether the full gate comes with the queries, from their latent before and after its norm (A.X-K2)."""
    bias: bool = False
    """Biases of the maps into the latents and of the output map."""
    sinks: bool = False
    """One learned sink logit a head."""
    rope_norm: bool = False
    """Whether the shared rotary key has a norm."""
    score_scale: bool = False
    """One learned scale and bias on the scores of each head, the indexer's too (Mistral Large 4)."""
    shares_kv: bool = False
    """Whether the latent is that of a block before, with no map into it and no cache of its own."""
    window: int = 0
    """Tokens that a token sees, itself among them; 0 for all before it."""
    index_heads: int = 0
    """Heads of the indexer that picks the tokens to attend to (DeepSeek-V3.2, arXiv 2512.02556); 0 without one."""
    index_head_dim: int = 0
    """Width of one of them [features]."""
    index_topk: int = 0
    """Tokens that it picks; without heads of its own, a block takes those that a block before it picked."""
    index_pool: int = 0
    """Tokens whose keys the indexer pools into one; 0 where it scores each."""
    index_input_norm: bool = False
    """Whether the indexer's queries have a norm on the block's input."""

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
        gates = {"none": [], "head": [(d_model, self.num_heads)], "full": [(d_model, self.width)]}[self.gate]
        if self.joint_gate:
            queries, gates = [(d_model, rank), (2 * rank, self._score_width + self.width)], []
        down = [] if self.shares_kv else [(d_model, self.kv_lora_rank + self.qk_rope_head_dim)]
        return [*queries, *down, self._up, *gates, *self._indexer(d_model), (self.width, d_model)]

    def _indexer(self, d_model: Size) -> list[Matrix]:
        """Its queries, from the query latent, its one key, the weights of its heads and of its pooling."""
        if not self.index_heads:
            return []
        keys, weights = (d_model, self.index_head_dim), (d_model, self.index_heads)
        pool = [keys] if self.index_pool else []
        return [(self.q_lora_rank or d_model, self.index_heads * self.index_head_dim), keys, weights, *pool]

    def vectors(self, d_model: Size) -> Size:
        """Norms of the latents, biases, sinks and scales; of an indexer the norm of its key, with a bias, and more."""
        params = self.latent_norm * (self.q_lora_rank + (0 if self.shares_kv else self.kv_lora_rank))
        if self.bias:
            latents = self.q_lora_rank + (0 if self.shares_kv else self.kv_lora_rank + self.qk_rope_head_dim)
            params = params + latents + d_model
        params = params + self.num_heads * (self.sinks + 2 * self.score_scale)
        params = params + self.rope_norm * self.qk_rope_head_dim
        if self.index_heads:
            params = params + (2 + self.index_pool) * self.index_head_dim
            params = params + 2 * self.index_heads * self.score_scale + 2 * d_model * self.index_input_norm
        return params

    @property
    def width(self) -> Size:
        """num_heads*v_head_dim: the rotary part of the scores is left out, as in published FLOP counts."""
        return self.num_heads * self.v_head_dim

    @property
    def cached_width(self) -> Size:
        """The latent and the shared rotary key (the same paper, section 2.1.4), and the indexer's key."""
        latent = 0 if self.shares_kv else self.kv_lora_rank + self.qk_rope_head_dim
        return latent + (self.index_head_dim if self.index_heads else 0)

    def cached_tokens(self, context: int) -> int:
        """No more than the window."""
        return min(context, self.window) if self.window else context

    @property
    def _most_seen(self) -> int:
        """Tokens that a token attends to at most; 0 for all before it."""
        return self.window or self.index_topk

    def _index_flops(self, seen: Size) -> Size:
        """FLOPs of the indexer's scores of `seen` tokens."""
        return 2 * self.index_heads * self.index_head_dim * seen // (self.index_pool or 1)

    def score_flops(self, seq_len: Size, *, causal: bool = False) -> Size:
        """Of the tokens in the window or that an indexer picks, if there is one, and its own scores of all before."""
        if not self._most_seen:
            return super().score_flops(seq_len, causal=causal)
        picked = min(self._most_seen, seq_len)
        seen = picked * (2 * seq_len - picked) // (2 * seq_len) if causal else picked
        return 12 * self.width * seen + 3 * self._index_flops(seq_len // 2 if causal else seq_len)

    def decode_flops(self, context: int) -> Size:
        """With the up-projections absorbed (section 2.1.2): 2*heads*(2*kv_lora_rank + rope)*context."""
        seen = min(self._most_seen, context) if self._most_seen else context
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
