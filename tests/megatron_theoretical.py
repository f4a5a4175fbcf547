"""Megatron-LM's own memory estimate (megatron/training/theoretical_memory_usage.py, d98e8a64), for tests.

`Namespace` fields are those of its arguments. Weights and optimizer: the most loaded shard has 1/pp of the layers, one
embedding, and the head where pp is 1. Activations: table 2 of arXiv 2205.05198 for the first stage. The bytes it gives
are in data/memory_cases.json.
"""

from __future__ import annotations

from types import SimpleNamespace

Args = SimpleNamespace


def _moe_layers(args: Args) -> int:
    if args.num_experts is None:
        return 0
    if isinstance(args.moe_layer_freq, int):
        return sum(i % args.moe_layer_freq == 0 for i in range(args.num_layers))
    return sum(args.moe_layer_freq)


def parts(args: Args) -> dict[str, float]:
    """Params of one layer's parts, by their names in the estimate."""
    gated = 3 / 2 if args.swiglu else 1
    norm = 1 if args.normalization == "RMSNorm" else 2
    h = args.hidden_size
    if args.multi_latent_attention:
        q_width = args.num_attention_heads * (args.qk_head_dim + args.qk_pos_emb_head_dim)
        q = h * q_width if args.q_lora_rank is None else args.q_lora_rank * (h + q_width + norm)
        kv_width = args.num_attention_heads * (args.qk_head_dim + args.v_head_dim)
        attention = q + args.kv_lora_rank * (h + kv_width + norm) + h * args.qk_pos_emb_head_dim
        attention += args.num_attention_heads * args.v_head_dim * h
    else:
        groups = args.num_query_groups if args.group_query_attention else args.num_attention_heads
        ratio = args.kv_channels * args.num_attention_heads / h
        attention = 2 * h * h * (1 + groups / args.num_attention_heads) * ratio
    experts = args.num_experts or 0
    return {
        "attention": attention,
        "dense": 2 * h * args.ffn_hidden_size * gated,
        "shared": 2 * h * (args.moe_shared_expert_intermediate_size or 0) * gated,
        "routed": 2 * h * (args.moe_ffn_hidden_size or 0) * experts * gated,
        "norms": 2 * h * norm,
        "router": h * experts,
        "final_norm": norm * h,
        "embedding": h * args.padded_vocab_size,
    }


def expert_replicas(args: Args) -> int:
    """Replicas of each routed expert."""
    split = args.expert_tensor_parallel_size * args.expert_model_parallel_size * args.pipeline_model_parallel_size
    return int(args.world_size // split)


def weight_and_optimizer_bytes(args: Args) -> float:
    """Bytes of weights, gradients and optimizer on the most loaded shard."""
    p, moe = parts(args), _moe_layers(args)
    dense = args.num_layers - moe
    tp, pp = args.tensor_model_parallel_size, args.pipeline_model_parallel_size
    split = (p["attention"] + p["dense"]) * dense + (p["attention"] + p["shared"]) * moe
    copied = p["norms"] * dense + (p["norms"] + p["router"]) * moe + p["final_norm"]
    shard = (split / pp + p["embedding"]) / tp + copied / pp
    if args.untie_embeddings_and_output_weights and pp == 1:
        shard += p["embedding"] / tp
    experts = p["routed"] * moe / pp / (args.expert_tensor_parallel_size * args.expert_model_parallel_size)

    def size(replicas: int) -> float:
        return 6 + 12 / replicas if args.use_distributed_optimizer else 18

    return float(shard * size(args.data_parallel_size) + experts * size(expert_replicas(args)))


def activation_bytes(args: Args) -> float:
    """Bytes of activations on the first stage, with pp micro-batches in flight; every layer counts as a dense one."""
    tokens = args.seq_length * args.micro_batch_size
    hidden = tokens * args.hidden_size
    total = hidden * (18 + 4 * args.ffn_hidden_size / args.hidden_size) * args.num_layers
    total += (8 * tokens + hidden) * args.pipeline_model_parallel_size
    if args.pipeline_model_parallel_size == 1:
        total += hidden * 4 * (1 + args.padded_vocab_size / args.hidden_size)
    return float(total / args.tensor_model_parallel_size)
