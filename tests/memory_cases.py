"""Measured and published training memory (data/memory_cases.json) as architectures, layouts and bytes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout

CASES: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "memory_cases.json").read_text(encoding="utf-8"))
"""All cases, by kind."""


def architecture(cfg: dict[str, Any]) -> Architecture:
    """The architecture of a measured run."""
    shape = {
        "d_model": cfg["hidden"],
        "num_layers": cfg["layers"],
        "vocab_size": cfg["vocab"],
        "num_heads": cfg["heads"],
    }
    if "experts" not in cfg:
        return Architecture(**shape, num_kv_heads=cfg["kv"], head_dim=cfg["head_dim"], d_ff=cfg["ffn"])
    return Architecture(
        **shape,
        d_ff=cfg["ffn_dense"],
        num_experts=cfg["experts"],
        num_active_experts=cfg["topk"],
        d_expert=cfg["moe_ffn"],
        num_shared_experts=1,
        d_shared_expert=cfg["shared_ffn"],
        num_dense_layers=cfg["first_k_dense"],
        attention="mla",
        q_lora_rank=cfg["q_lora"],
        kv_lora_rank=cfg["kv_lora"],
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
    )


def layout(cfg: dict[str, Any]) -> Layout:
    """The layout of a measured run."""
    return Layout(tp=cfg["tp"], pp=cfg["pp"], dp=cfg["dp"], ep=cfg.get("ep", 1), cp=cfg.get("cp", 1))


def megatron_architecture(args: SimpleNamespace) -> Architecture:
    """The architecture of Megatron-LM's arguments; an ungated block becomes a gated one of as many params."""
    shape: dict[str, Any] = {
        "d_model": args.hidden_size,
        "num_layers": args.num_layers,
        "vocab_size": args.padded_vocab_size,
        "num_heads": args.num_attention_heads,
        "d_ff": args.ffn_hidden_size if args.swiglu else args.ffn_hidden_size * 2 // 3,
        "tied_embeddings": not args.untie_embeddings_and_output_weights,
    }
    if args.multi_latent_attention:
        shape |= {
            "attention": "mla",
            "q_lora_rank": args.q_lora_rank or 0,
            "kv_lora_rank": args.kv_lora_rank,
            "qk_nope_head_dim": args.qk_head_dim,
            "qk_rope_head_dim": args.qk_pos_emb_head_dim,
            "v_head_dim": args.v_head_dim,
        }
    else:
        shape |= {"num_kv_heads": args.num_query_groups, "head_dim": args.kv_channels}
        shape["qk_norm"] = "head" if getattr(args, "qk_layernorm", False) else "none"
    if args.num_experts is not None:
        pattern = args.moe_layer_freq if isinstance(args.moe_layer_freq, list) else [1] * args.num_layers
        shared = args.moe_shared_expert_intermediate_size or 0
        shape |= {
            "num_experts": args.num_experts,
            "num_active_experts": args.moe_router_topk,
            "d_expert": args.moe_ffn_hidden_size,
            "num_dense_layers": pattern.index(1),
            "num_shared_experts": int(shared > 0),
            "d_shared_expert": shared,
        }
    return Architecture(**shape)


def megatron_layout(args: SimpleNamespace) -> Layout:
    """The layout of Megatron-LM's arguments."""
    return Layout(
        tp=args.tensor_model_parallel_size,
        pp=args.pipeline_model_parallel_size,
        ep=args.expert_model_parallel_size,
        etp=args.expert_tensor_parallel_size,
        dp=args.data_parallel_size,
        micro_batch=args.micro_batch_size,
        virtual_stages=args.virtual_pipeline_model_parallel_size or 1,
    )
