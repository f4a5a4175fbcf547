"""Megatron-LM's flags of models whose blocks differ: gated delta-nets or Mamba-2 beside full attention.

Gated delta-nets stand in its GPT model, every Nth layer of full attention. Mamba-2 stands in its hybrid model
(`pretrain_hybrid.py`), whose layers are one part of a block each, written as a pattern of letters: M Mamba-2,
* attention, - a dense and E a MoE feed-forward part, | between the stages of a pipeline
(megatron/core/models/hybrid/hybrid_layer_allocation.py). Its attention has no rotary positions, as NemotronH's.
"""

from __future__ import annotations

from moeplan.architecture.attention import Attention
from moeplan.architecture.attention.delta import GatedDeltaNet
from moeplan.architecture.attention.gqa import GroupedQueryAttention
from moeplan.architecture.attention.mamba import Mamba2
from moeplan.architecture.hybrid import HybridArchitecture
from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError
from moeplan.plan.export.plain import moe_layers


def hybrid_args(shape: Architecture) -> dict[str, object]:
    """The flags beside those of plain models; raises `InfeasibleError` for blocks that Megatron-LM has no flags for.

    Its --linear-attention-freq N makes every Nth layer one of full attention, the others linear
    (megatron/core/models/gpt/experimental_attention_variant_module_specs.py).
    """
    if not isinstance(shape, HybridArchitecture) or not shape.attentions:
        return {}
    kinds = [attention for _, attention in shape.attentions]
    state, full = kinds[0], kinds[-1]
    if is_state_space(shape):
        return {}
    if len(kinds) != 2 or not isinstance(state, GatedDeltaNet) or not isinstance(full, GroupedQueryAttention):
        raise InfeasibleError(
            f"Megatron-LM export is not written for {_named(kinds)}; its GPT model has flags for gated delta-nets "
            "and its hybrid model for Mamba-2 beside full attention alone, so plan with attention gdn-3:1 or "
            "mamba2-3:1, or export to hf"
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


def is_state_space(shape: Architecture) -> bool:
    """Whether a model is Megatron-LM's hybrid one: blocks of Mamba-2 and of grouped-query attention."""
    if not isinstance(shape, HybridArchitecture):
        return False
    kinds = [attention for _, attention in shape.attentions]
    return any(isinstance(kind, Mamba2) for kind in kinds) and all(
        isinstance(kind, Mamba2 | GroupedQueryAttention) for kind in kinds
    )


def state_space_args(args: dict[str, object], shape: Architecture, layout: Layout) -> dict[str, object]:
    """`args` as the hybrid model takes them, with its pattern of layers and the sizes of Mamba-2.

    Raises `InfeasibleError` for Mamba-2 blocks that it has no flags for.
    """
    assert isinstance(shape, HybridArchitecture)
    mamba = next(attention for _, attention in shape.attentions if isinstance(attention, Mamba2))
    if (mamba.conv_kernel, mamba.conv_bias, mamba.bias) != (4, True, False):
        raise InfeasibleError(
            f"Megatron-LM's Mamba-2 convolves 4 tokens with a bias and maps without: not {mamba.conv_kernel} tokens"
        )
    kept = {flag: value for flag, value in args.items() if flag not in _OF_BLOCKS}
    if "--recompute-num-layers" in kept:
        kept["--recompute-num-layers"] = 2 * int(str(kept["--recompute-num-layers"]))  # a block is two layers here
    return kept | {
        "--position-embedding-type": "none",
        "--is-hybrid-model": "",
        "--spec": "megatron.core.models.hybrid.hybrid_layer_specs hybrid_stack_spec",
        "--hybrid-layer-pattern": _pattern(shape, layout),
        "--mamba-num-heads": mamba.num_heads,
        "--mamba-head-dim": mamba.head_dim,
        "--mamba-state-dim": mamba.state_dim,
        "--mamba-num-groups": mamba.num_groups,
    }


_OF_BLOCKS = (
    "--num-layers",
    "--moe-layer-freq",
    "--rotary-base",
    "--num-virtual-stages-per-pipeline-rank",
    "--pipeline-model-parallel-layout",
    "--decoder-first-pipeline-num-layers",
    "--decoder-last-pipeline-num-layers",
    "--overlap-moe-expert-parallel-comm",
)
"""Flags that the pattern stands for, and those that the hybrid model does not have."""


def _pattern(shape: HybridArchitecture, layout: Layout) -> str:
    """Two letters a block, and | between what the stages of a pipeline hold."""
    mixers = {layer: run.attention for run in shape.blocks.attentions for layer in run.layers}
    blocks = [
        ("M" if isinstance(mixers[layer], Mamba2) else "*") + ("E" if moe else "-")
        for layer, moe in enumerate(moe_layers(shape))
    ]
    if layout.pp == 1:
        return "".join(blocks)
    held, first = [], 0
    for count in layout.chunks(shape.num_layers):
        held.append("".join(blocks[first : first + count]))
        first += count
    return "|".join(held)


def _named(kinds: list[Attention]) -> str:
    return " and ".join(dict.fromkeys(attention.label for attention in kinds))
