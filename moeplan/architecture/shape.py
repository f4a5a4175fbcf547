"""The integer shape of one model: `Architecture`, its exact counts and its ratios."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

from moeplan.architecture import counting, ratios
from moeplan.architecture.attention import Attention, attention_of, kind_named
from moeplan.errors import UsageError
from moeplan.records import Word

ParamConvention = Literal["with_embeddings", "without_input_embedding", "non_embedding"]
"""Scopes of a parameter count: both embeddings, all but the input embedding, or neither."""

PLAIN: dict[str, object] = {
    "qkv_bias": False,
    "output_bias": False,
    "attention_sinks": False,
    "router_bias": False,
    "router_correction_bias": False,
    "expert_bias": False,
    "shared_expert_gate": False,
    "d_dense_residual": 0,
    "d_latent": 0,
    "norms_per_block": 2,
    "num_final_norms": 1,
    "num_mtp_layers": 0,
}
"""Values of a usual decoder in the fields of biases, sinks, gates and odd norms."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder-only transformer, dense or Mixture-of-Experts, as integers.

    Raises `UsageError` for a shape no model can have (top-k above the number of experts, KV heads that do not divide
    heads, and so on). A dense model has `num_experts = 0`.
    """

    d_model: int
    """Width of the residual stream [features]."""
    num_layers: int
    """Transformer blocks, dense and MoE together; multi-token-prediction layers not counted."""
    vocab_size: int
    """Rows of the embedding."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int = 0
    """Key-value heads (GQA); 0 stands for num_heads (plain multi-head attention)."""
    head_dim: int = 0
    """Width of one head (GQA) [features]; 0 stands for d_model / num_heads."""
    d_ff: int = 0
    """Width of the gated feed-forward block in dense layers [features]."""
    num_experts: int = 0
    """Routed experts a MoE layer; 0 is a dense model."""
    num_active_experts: int = 0
    """Routed experts a token reaches (top-k)."""
    d_expert: int = 0
    """Width of one routed expert [features]."""
    num_shared_experts: int = 0
    """Experts that every token passes through."""
    d_shared_expert: int = 0
    """Width of one shared expert [features]; 0 stands for d_expert."""
    num_dense_layers: int = 0
    """First layers that are dense instead of MoE."""
    moe_layer_pattern: tuple[bool, ...] | None = None
    """Which layers are MoE, one entry a layer, where that is not "all but the first num_dense_layers"."""
    tied_embeddings: bool = False
    """Whether the output head is the input embedding."""
    attention: Word = "gqa"
    """Kind of attention: a name of `moeplan.architecture.attention.KINDS`, which says what the sizes below mean."""
    q_lora_rank: int = 0
    """MLA: rank of the query map; 0 is a straight map."""
    kv_lora_rank: int = 0
    """MLA: width of the cached latent [features]."""
    qk_nope_head_dim: int = 0
    """MLA: width of a head's score without rotary position [features]."""
    qk_rope_head_dim: int = 0
    """MLA: width of the rotary key that all heads share [features]."""
    v_head_dim: int = 0
    """MLA: width of a head's value [features]."""
    qkv_bias: bool = False
    """Bias on the query, key and value maps."""
    output_bias: bool = False
    """Bias on the attention's output map."""
    attention_sinks: bool = False
    """One learned sink logit a head."""
    qk_norm: Literal["none", "head", "full"] = "none"
    """Norm of queries and keys: none, one weight vector of head_dim, or over the full width."""
    router_bias: bool = False
    """Bias in the router's logits (a parameter)."""
    router_correction_bias: bool = False
    """Load-balancing bias stored as a parameter; elsewhere it is a buffer and counts nowhere."""
    expert_bias: bool = False
    """Biases in the routed experts' maps."""
    shared_expert_gate: bool = False
    """A learned gate on the shared experts (d_model params a layer)."""
    d_dense_residual: int = 0
    """Width of a dense block that runs beside the experts in MoE layers [features]."""
    d_latent: int = 0
    """Width that routed experts take in and give out, between two maps a layer (LatentMoE, arXiv 2601.18089); 0 for
    d_model [features]."""
    norms_per_block: int = 2
    """RMS norms of width d_model in one block."""
    num_final_norms: int = 1
    """RMS norms of width d_model outside the blocks."""
    num_kv_layers: int = 0
    """Layers that keep a KV cache of their own; 0 stands for num_layers."""
    num_mtp_layers: int = 0
    """Multi-token-prediction layers, which are in no total."""
    num_moe_layers: int = field(init=False, default=0)
    """Layers with experts (derived)."""

    def __post_init__(self) -> None:
        def derive(name: str, value: object) -> None:
            object.__setattr__(self, name, value)  # a frozen class sets its own defaults

        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.type == "int" and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise UsageError(f"{f.name} {value!r} must be a whole number of at least 0")
            if f.type == "int" and value >= 2**31:
                raise UsageError(f"{f.name} {value!r} must be below 2**31")
            if f.type == "bool" and not isinstance(value, bool):
                raise UsageError(f"{f.name} {value!r} must be true or false")
        pattern: object = self.moe_layer_pattern
        if pattern is not None and not (
            isinstance(pattern, list | tuple) and all(isinstance(moe, bool) for moe in pattern)
        ):
            raise UsageError(f"moe_layer_pattern {pattern!r} must be a list of true or false, one for each layer")
        for name in ("d_model", "num_layers", "vocab_size", "num_heads"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} must be at least 1")
        kind = kind_named(self.attention)
        if self.qk_norm not in ("none", "head", "full"):
            raise UsageError(f"qk_norm {self.qk_norm!r} must be none, head or full")
        for name, value in kind.complete({f.name: getattr(self, f.name) for f in dataclasses.fields(self)}).items():
            derive(name, value)
        if self.num_kv_heads == 0:
            derive("num_kv_heads", self.num_heads)
        if self.num_heads % self.num_kv_heads:
            raise UsageError(f"num_kv_heads {self.num_kv_heads} must divide num_heads {self.num_heads}")
        if self.num_kv_layers > self.num_layers:
            raise UsageError(f"num_kv_layers {self.num_kv_layers} must be at most num_layers {self.num_layers}")
        if self.num_kv_layers == 0:
            derive("num_kv_layers", self.num_layers)
        if self.num_experts == 0:
            for name in ("num_active_experts", "d_expert", "num_shared_experts", "d_shared_expert", "d_latent"):
                if getattr(self, name):
                    raise UsageError(f"{name} {getattr(self, name)} needs num_experts above 0")
            if self.num_dense_layers not in (0, self.num_layers):
                raise UsageError(
                    f"num_dense_layers {self.num_dense_layers} must be num_layers {self.num_layers} in a dense model"
                )
            if self.moe_layer_pattern is not None and any(self.moe_layer_pattern):
                raise UsageError("moe_layer_pattern names MoE layers but num_experts is 0")
            derive("num_dense_layers", self.num_layers)
        else:
            if not 1 <= self.num_active_experts <= self.num_experts:
                raise UsageError(
                    f"num_active_experts {self.num_active_experts} must be 1 to num_experts {self.num_experts}"
                )
            if self.d_expert < 1:
                raise UsageError("d_expert 0 must be at least 1 for a model with experts")
            if self.d_shared_expert == 0 and self.num_shared_experts:
                derive("d_shared_expert", self.d_expert)
            if self.num_dense_layers > self.num_layers:
                raise UsageError(
                    f"num_dense_layers {self.num_dense_layers} must be at most num_layers {self.num_layers}"
                )
        if self.moe_layer_pattern is not None:
            derive("moe_layer_pattern", tuple(self.moe_layer_pattern))
            if len(self.moe_layer_pattern) != self.num_layers:
                raise UsageError(
                    f"moe_layer_pattern has {len(self.moe_layer_pattern)} entries, num_layers is {self.num_layers}"
                )
            first_moe = self.moe_layer_pattern.index(True) if True in self.moe_layer_pattern else self.num_layers
            derive("num_dense_layers", first_moe)
            derive("num_moe_layers", sum(self.moe_layer_pattern))
        else:
            derive("num_moe_layers", self.num_layers - self.num_dense_layers)
        if self.num_moe_layers < self.num_layers and self.d_ff < 1:
            raise UsageError("d_ff 0 must be at least 1 for a model with dense layers")

    @property
    def is_dense(self) -> bool:
        """Whether no layer has experts."""
        return self.num_moe_layers == 0

    @cached_property
    def uniform_attention(self) -> Attention:
        """The attention that every block has."""
        return attention_of(self)

    def params_by_group(self) -> dict[str, int]:
        """Params by group; the groups add up to `total_params()` (see `moeplan.architecture.counting.GROUPS`)."""
        return counting.params_by_group(self)

    def total_params(self, convention: ParamConvention = "with_embeddings") -> int:
        """N [params] under one of the three conventions."""
        return self._under(counting.total_params(self), convention)

    def active_params(self, convention: ParamConvention = "with_embeddings") -> int:
        """N_a [params], what one token passes through, under one of the three conventions."""
        return self._under(counting.active_params(self), convention)

    def _under(self, params: int, convention: ParamConvention) -> int:
        if convention == "with_embeddings":
            return params
        if convention == "without_input_embedding":
            return params - self.vocab_size * self.d_model
        if convention == "non_embedding":
            return params - self.embedding_params
        raise UsageError(f"convention {convention!r} must be with_embeddings, without_input_embedding or non_embedding")

    @property
    def embedding_params(self) -> int:
        """Params of the input embedding and, where untied, the output head."""
        return cast(int, counting.embedding_params(self))

    @property
    def mtp_params(self) -> int:
        """Params of the multi-token-prediction layers, in no total."""
        return cast(int, counting.mtp_params(self))

    def flops_per_token(
        self, seq_len: int, *, attention: Literal["causal", "full", "none"] = "causal", logits: bool = True
    ) -> int:
        """Training FLOPs per token, forward and backward, as `counting.flops_per_token` has them."""
        return cast(int, counting.flops_per_token(self, seq_len, attention=attention, logits=logits))

    @property
    def active_param_ratio(self) -> float:
        """N_a/N, both with embeddings."""
        return self.active_params() / self.total_params()

    @property
    def activation_ratio(self) -> float:
        """A = num_active_experts / num_experts, routed experts only; 1 for a dense model."""
        return cast(float, ratios.activation_ratio(self))

    @property
    def G(self) -> int | float:
        """Experts active per token including shared ones; 1 for a dense model. Experts in a latent width count as
        many as would cost the same in the model's own."""
        active = cast(float, ratios.active_experts(self))
        return int(active) if active == int(active) else active

    @property
    def shared_ratio(self) -> float:
        """S = shared / (active + shared) experts; 0 for a dense model."""
        return cast(float, ratios.shared_ratio(self))

    @property
    def granularity(self) -> float:
        """g = 2*d_model / d_expert; 2*d_model / d_ff for a dense model."""
        return cast(float, ratios.granularity(self))

    @property
    def expansion_ratio(self) -> float:
        """Total expert width / active expert width, shared experts in both; 1 for a dense model."""
        return cast(float, ratios.expansion_ratio(self))

    def to_dict(self) -> dict[str, Any]:
        """Every field that differs from its default, under its own name; `from_dict` gives this back."""
        result: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.init and value != f.default:
                result[f.name] = list(value) if isinstance(value, tuple) else value
        return result

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Architecture:
        """Read what `to_dict` wrote; raises `UsageError` for unknown or missing fields."""
        known = {f.name for f in dataclasses.fields(cls) if f.init}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UsageError(f"architecture has the unknown field {unknown[0]!r}")
        missing = [name for name in ("d_model", "num_layers", "vocab_size", "num_heads") if name not in values]
        if missing:
            raise UsageError(f"architecture lacks the field {missing[0]!r}")
        if not values.get("num_experts"):  # every layer is dense then, which the class derives itself
            values = {name: value for name, value in values.items() if name != "num_dense_layers"}
        return cls(**values)
