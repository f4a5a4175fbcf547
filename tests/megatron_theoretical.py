"""Megatron-LM's own memory estimate (megatron/training/theoretical_memory_usage.py, d98e8a64), for tests.

`Namespace` fields are those of its arguments. Weights and optimizer: the most loaded shard has 1/pp of the layers, one
embedding, and the head where pp is 1. Activations: table 2 of arXiv 2205.05198 for the first stage. The bytes it gives
are in data/memory_cases.json. `activation_differences` names what moeplan counts otherwise.
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


def schedule_micro_batches(args: Args, stage: int = 0) -> float:
    """Micro-batches that a stage holds; on the first one pp, times its penalty of an interleaved schedule."""
    pp, v = args.pipeline_model_parallel_size, args.virtual_pipeline_model_parallel_size
    if v is None:
        return float(pp - stage)
    return float(pp * (1 + (pp - 1) / (pp * v)) - 2 * stage / v)


def activation_bytes(args: Args) -> float:
    """Bytes of activations on the first stage; every layer counts as a dense one."""
    tokens = args.seq_length * args.micro_batch_size
    hidden = tokens * args.hidden_size
    total = hidden * (18 + 4 * args.ffn_hidden_size / args.hidden_size) * args.num_layers
    total += (8 * tokens + hidden) * args.pipeline_model_parallel_size
    total *= schedule_micro_batches(args) / args.pipeline_model_parallel_size
    if args.pipeline_model_parallel_size == 1:
        total += hidden * 4 * (1 + args.padded_vocab_size / args.hidden_size)
    return float(total / args.tensor_model_parallel_size)


def activation_differences(
    args: Args, *, stage: int, dense: int, moe: int, logits: bool, d_ff: int
) -> dict[str, float]:
    """Bytes, by name, that moeplan's activations and logits of a stage have beyond `activation_bytes`.

    The stage has `dense` and `moe` layers; `logits` says whether its fullest moment is the output layer's, `d_ff` is
    the width of a gated dense block. The estimate's 18*h + 4*f a token and layer, all over tp, are (table 2 of arXiv
    2205.05198) the norms' inputs 4*h, inputs of QKV 2*h, Q and K 4*h, V 2*h, the attention output 2*h, the block's
    input 2*h, two dropout masks of h, and input and output of an ungated activation 4*f. Neither keeps attention
    scores: it assumes that selective recomputation drops them, moeplan that flash attention never writes them. Every
    split by tp is the same, as sequence parallelism splits what tp does not. Context parallelism is not in it.
    """
    h, ffn, tp, pp = (
        args.hidden_size,
        args.ffn_hidden_size,
        args.tensor_model_parallel_size,
        args.pipeline_model_parallel_size,
    )
    tokens = args.seq_length * args.micro_batch_size / tp
    theirs, flying = schedule_micro_batches(args), schedule_micro_batches(args, stage)
    layer = 18 * h + 4 * ffn
    heads = args.num_attention_heads
    if args.multi_latent_attention:
        queries = keys = heads * (args.qk_head_dim + args.qk_pos_emb_head_dim)
        values = output = heads * args.v_head_dim
        latents = 2 * (args.q_lora_rank or 0) + 2 * args.kv_lora_rank + args.qk_pos_emb_head_dim
    else:
        queries = output = heads * args.kv_channels
        keys = values = args.num_query_groups * args.kv_channels
        latents = 0
    in_layers = {  # (bytes a token, layers that have it)
        # Training without dropout, as all these models are, has no masks after the attention and the block.
        "no dropout masks": (-2 * h, dense + moe),
        # Heads times head width is not d_model in Qwen3 and DeepSeek, and MLA's queries have a rotary part as well.
        "queries at their own width": (2 * (queries - h), dense + moe),
        # Grouped-query attention has fewer key and value heads, MLA wider keys, than d_model.
        "keys and values at their own width": (2 * (keys - h) + 2 * (values - h), dense + moe),
        # The output map's input has the width of the heads' values.
        "attention output at its own width": (2 * (output - h), dense + moe),
        # Flash attention keeps one fp32 log-sum-exp a token and head for its backward pass.
        "softmax statistics": (4 * heads, dense + moe),
        # MLA keeps its query and key-value latents before and after their norms, and the shared rotary key.
        "MLA latents": (2 * latents, dense + moe),
        # A norm of queries and keys keeps its input beside the output that attention keeps.
        "query and key norms": (2 * (queries + keys) * getattr(args, "qk_layernorm", False), dense + moe),
        # A gated block keeps gate, up and their product, 6 bytes a feature, where an ungated one keeps 4; for GPT-3,
        # which is ungated, moeplan takes the gated block of as many params, and the two are the same.
        "gated dense blocks": (6 * d_ff - 4 * ffn, dense),
    }
    if moe:
        experts, rows = args.num_experts, args.moe_router_topk
        in_layers |= {
            # A MoE layer has no block of ffn_hidden_size features.
            "no dense block in MoE layers": (-4 * ffn, moe),
            # Each token has top-k rows in gated experts when tokens are spread evenly.
            "routed experts": (6 * rows * args.moe_ffn_hidden_size, moe),
            # The experts' first product needs its input, a copy of the token for each row, on each GPU that shares it.
            "permuted inputs": (2 * h * rows * args.expert_tensor_parallel_size, moe),
            # Shared experts are one gated block that sees every token.
            "shared experts": (6 * (args.moe_shared_expert_intermediate_size or 0), moe),
            # The router keeps a bf16 probability for every expert.
            "router probabilities": (2 * experts, moe),
            # The permutation keeps two int32 places for every expert.
            "router maps": (2 * 4 * experts, moe),
        }
    vocab = args.padded_vocab_size
    padded = -(-vocab // (128 * tp)) * 128 * tp
    alone = pp == 1
    return {name: flying * layers * tokens * size for name, (size, layers) in in_layers.items()} | {
        # It gives the first stage 1/pp of the layers, and a stage has whole ones.
        "whole layers": theirs * (dense + moe - args.num_layers / pp) * tokens * layer,
        # It counts what the first stage holds; each later stage holds fewer.
        "micro-batches in flight": (flying - theirs) * (dense + moe) * tokens * layer,
        # Token ids, int64, are 8 bytes a token of every micro-batch in flight, which moeplan leaves out.
        "token ids": -8 * tokens * theirs,
        # Without dropout the embedding has no mask.
        "no embedding dropout mask": -h * tokens * theirs,
        # Input and output of the final norm are alive on the last stage, at the output layer's moment only.
        "final norm and output layer's input": 4 * h * tokens * (logits - alone),
        # So are the logits, which it counts only without a pipeline.
        "logits at the output layer's moment": 4 * vocab * tokens * (logits - alone),
        # The fused cross-entropy writes its gradient over bf16 logits; an fp32 copy is not kept.
        "bf16 logits": -2 * vocab * tokens * logits,
        # The vocabulary is padded to a multiple of 128 * tp.
        "padded vocabulary": 2 * (padded - vocab) * tokens * logits,
    }
