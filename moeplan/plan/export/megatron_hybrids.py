"""Megatron-LM's flags of models whose blocks differ: gated delta-nets beside full attention."""

from __future__ import annotations

from moeplan.architecture.attention import Attention
from moeplan.architecture.attention.delta import GatedDeltaNet
from moeplan.architecture.attention.gqa import GroupedQueryAttention
from moeplan.architecture.hybrid import HybridArchitecture
from moeplan.architecture.shape import Architecture
from moeplan.errors import InfeasibleError


def hybrid_args(shape: Architecture) -> dict[str, object]:
    """The flags beside those of plain models; raises `InfeasibleError` for blocks that Megatron-LM has no flags for.

    Its --linear-attention-freq N makes every Nth layer one of full attention, the others linear
    (megatron/core/models/gpt/experimental_attention_variant_module_specs.py).
    """
    if not isinstance(shape, HybridArchitecture) or not shape.attentions:
        return {}
    kinds = [attention for _, attention in shape.attentions]
    state, full = kinds[0], kinds[-1]
    if len(kinds) != 2 or not isinstance(state, GatedDeltaNet) or not isinstance(full, GroupedQueryAttention):
        raise InfeasibleError(
            f"Megatron-LM export is not written for {_named(kinds)}; its GPT model has flags for gated delta-nets "
            "beside full attention alone, so plan with attention gdn-3:1 or export to hf"
        )
    every = shape.blocks.attentions[-1].layers[0] + 1
    if list(shape.blocks.attentions[-1].layers) != list(range(every - 1, shape.num_layers, every)):
        raise InfeasibleError("Megatron-LM's --linear-attention-freq takes one full layer in a row, as in gdn-3:1")
    return {
        "--experimental-attention-variant": "gated_delta_net",
        "--linear-attention-freq": every,
        "--linear-conv-kernel-dim": state.conv_kernel,
        "--linear-key-head-dim": state.key_head_dim,
        "--linear-value-head-dim": state.value_head_dim,
        "--linear-num-key-heads": state.num_key_heads,
        "--linear-num-value-heads": state.num_value_heads,
        **({"--attention-output-gate": ""} if full.gate == "full" else {}),
    }


def _named(kinds: list[Attention]) -> str:
    return " and ".join(dict.fromkeys(attention.label for attention in kinds))
