"""The proxy model, dense or Mixture-of-Experts, in reading order: norms, attention, experts, blocks, `Model`.

A pre-norm decoder: RMSNorm, rotary positions, per-head norm of queries and keys, grouped-query attention, SwiGLU. MoE
layers drop no token: an fp32 sigmoid router with a correction bias that balances the load (Wang et al. 2024, arXiv
2408.15664; DeepSeek-V3, arXiv 2412.19437, section 2.1.2), routed and shared experts, first layers dense.

Matrices may be bf16 or fp32; the residual stream, norms, router and loss are fp32. No step reads a number back from
the device, so that a GPU can replay a whole step as one graph.

Shapes are suffixes: x_NTD is (N, T, D).

    N sequences of a batch      T positions of a sequence      M = N*T tokens
    D d_model      V vocab_size      H query heads      G key-value heads      B = N*H      C head_dim      R = C/2
    E experts      K experts a token reaches      S = M*K choices      R (of experts) rows: S, or more with padding
    F width of a block

Initialisation and width (Yang et al. 2022, arXiv 2203.03466, table 3, for Adam): a matrix starts normal with standard
deviation fan_in**-0.5 (maps back into the residual stream: times (2*num_layers)**-0.5), the embedding with 1, the
output head with 0 (its gradient comes first) and, where it is the embedding itself, logits are divided by d_model.
How the learning rate moves with width was measured (`moeplan.verification.tuning.transfer_learning_rate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moeplan.architecture.routing import expert_scale, normalises
from moeplan.architecture.shape import Architecture
from moeplan.verification.experts import Combine, Dispatch, ProductPath, expert_mm, in_blocks, product_path, sort_rows
from moeplan.verification.spec import check_architecture

ROPE_BASE = 10_000.0
"""Wavelengths of the rotary positions run from 2*pi to this times 2*pi (Su et al. 2021, arXiv 2104.09864)."""
NORM_EPSILON = 1e-6


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in fp32 whatever comes in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, dtype of the weight."""
        return F.rms_norm(x.to(self.weight.dtype), self.weight.shape, self.weight, NORM_EPSILON)


def rotary_table(seq_len: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position * base**(-r/R), r = 0..R-1, each (T, R), fp32."""
    frequencies_R = ROPE_BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles_TR = torch.arange(seq_len, dtype=torch.float64)[:, None] * frequencies_R
    return angles_TR.cos().float(), angles_TR.sin().float()


def rotate(x_NTHC: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """Turn the pair (r, R + r) of every head by its position's angle: scores then depend on distance alone."""
    left, right = x_NTHC.chunk(2, dim=-1)
    cos_T1R, sin_T1R = cos_TR[:, None].to(x_NTHC.dtype), sin_TR[:, None].to(x_NTHC.dtype)
    return torch.cat([left * cos_T1R - right * sin_T1R, right * cos_T1R + left * sin_T1R], dim=-1)


def attend(q_NHTC: Tensor, k_NHTC: Tensor, v_NHTC: Tensor) -> Tensor:
    """Causal attention, softmax(q k / sqrt(C)) v.

    On a CPU in bf16 by its three products: torch's fused kernel takes 3 times as long there, most of it backward.
    """
    if q_NHTC.dtype != torch.bfloat16 or q_NHTC.is_cuda:
        return F.scaled_dot_product_attention(q_NHTC, k_NHTC, v_NHTC, is_causal=True)
    n, h, t, c = q_NHTC.shape
    q_BTC, k_BTC, v_BTC = (x.reshape(n * h, t, c) for x in (q_NHTC * c**-0.5, k_NHTC, v_NHTC))
    future_TT = torch.full((t, t), float("-inf"), dtype=q_BTC.dtype, device=q_BTC.device).triu(1)
    score_BTT = torch.baddbmm(future_TT.expand(n * h, t, t), q_BTC, k_BTC.transpose(1, 2))
    return torch.bmm(score_BTT.softmax(dim=-1), v_BTC).view(n, h, t, c)


class Attention(nn.Module):
    """Causal grouped-query attention with normed queries and keys."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.heads = (a.num_heads, a.num_kv_heads, a.num_kv_heads)
        self.head_dim = a.head_dim
        self.w_qkv = nn.Parameter(torch.empty(sum(self.heads) * a.head_dim, a.d_model))
        self.w_out = nn.Parameter(torch.empty(a.d_model, a.num_heads * a.head_dim))
        self.q_norm = RMSNorm(a.head_dim)
        self.k_norm = RMSNorm(a.head_dim)

    def forward(self, x_NTD: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
        """What each position takes from itself and those before it (N, T, D)."""
        n, t, _ = x_NTD.shape
        qkv = F.linear(x_NTD, self.w_qkv).view(n, t, sum(self.heads), self.head_dim)
        q_NTHC, k_NTGC, v_NTGC = qkv.split(self.heads, dim=2)
        q_NTHC = rotate(self.q_norm(q_NTHC), cos_TR, sin_TR).to(v_NTGC.dtype)
        k_NTGC = rotate(self.k_norm(k_NTGC), cos_TR, sin_TR).to(v_NTGC.dtype)
        y_NHTC = attend(
            q_NTHC.transpose(1, 2), self._per_head(k_NTGC).transpose(1, 2), self._per_head(v_NTGC).transpose(1, 2)
        )
        return F.linear(y_NHTC.transpose(1, 2).reshape(n, t, -1), self.w_out)

    def _per_head(self, x_NTGC: Tensor) -> Tensor:
        """Keys or values repeated for the query heads that share them."""
        heads, groups, _ = self.heads
        return x_NTGC if heads == groups else x_NTGC.repeat_interleave(heads // groups, dim=2)


class SwiGLU(torch.autograd.Function):
    """silu(gate) * up, with halves that lie in one piece: a CPU is several times slower on narrow strided rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(..., 2F) to (..., F)."""
        gate, up = (half.contiguous() for half in x.chunk(2, dim=-1))
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """(..., F) to (..., 2F)."""
        (gate, up), (grad,) = ctx.saved_tensors, grads
        d_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return torch.cat([d_gate, F.silu(gate).mul_(grad)], dim=-1)


def swiglu(x: Tensor) -> Tensor:
    """silu(gate) * up, for gate and up side by side on the last axis."""
    return cast(Tensor, SwiGLU.apply(x))


class FeedForward(nn.Module):
    """A dense SwiGLU block."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.w_in = nn.Parameter(torch.empty(2 * width, d_model))
        self.w_out = nn.Parameter(torch.empty(d_model, width))

    def forward(self, x_MD: Tensor) -> Tensor:
        """(M, D) to (M, D)."""
        return F.linear(swiglu(F.linear(x_MD, self.w_in)), self.w_out)


def largest(score_ME: Tensor, count: int) -> Tensor:
    """Ids of the `count` largest of each row, in no order: always that many different ones, ties and NaN included."""
    if score_ME.device.type == "cpu":  # three times as fast as topk there
        return torch.from_numpy(score_ME.numpy().argpartition(-count, axis=1)[:, -count:])
    return score_ME.topk(count, dim=1, sorted=False).indices


class MoE(nn.Module):
    """Routed experts without dropping, plus shared experts that every token passes through."""

    bias_E: Tensor
    load_E: Tensor

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.num_experts, self.num_active = a.num_experts, a.num_active_experts
        self.blind = False  # whether tokens take experts in turn, whatever they are (a control)
        self.router = nn.Parameter(torch.empty(a.num_experts, a.d_model))
        self.w_in = nn.Parameter(torch.empty(a.num_experts, a.d_model, 2 * a.d_expert))
        self.w_out = nn.Parameter(torch.empty(a.num_experts, a.d_expert, a.d_model))
        # Shared experts are one block as wide as all of them: the same params and the same sum.
        shared = a.num_shared_experts * a.d_shared_expert
        self.shared = FeedForward(a.d_model, shared) if shared else None
        self.register_buffer("bias_E", torch.zeros(a.num_experts))
        self.register_buffer("load_E", torch.zeros(a.num_experts))  # tokens that reached each expert, last forward

    def route(self, x_MD: Tensor) -> tuple[Tensor, Tensor]:
        """Which experts each token reaches and the weights of their outputs, both (M, K).

        Scores are sigmoids; the K largest of score + bias are taken, so that ties and NaN still give exactly K
        different experts. What weights they get `moeplan.architecture.routing` says.
        """
        score_ME = torch.sigmoid(F.linear(x_MD.to(self.router.dtype), self.router))
        if self.blind:
            places = torch.arange(len(x_MD) * self.num_active, device=x_MD.device)
            ids_MK = (places % self.num_experts).view(len(x_MD), self.num_active)
        else:
            ids_MK = largest((score_ME.detach() + self.bias_E), self.num_active)
        weight_MK = score_ME.gather(1, ids_MK)
        if normalises(self.num_experts, self.num_active):
            weight_MK = weight_MK / weight_MK.sum(dim=-1, keepdim=True) * expert_scale(self.num_active)
        return ids_MK, weight_MK

    def forward(self, x_MD: Tensor) -> Tensor:
        """(M, D) to (M, D); leaves the number of tokens of each expert in `load_E`."""
        low_MD = x_MD.to(self.w_in.dtype)
        ids_MK, weight_MK = self.route(x_MD)
        rows = sort_rows(ids_MK, self.num_experts, blocks=in_blocks(self.w_in) or in_blocks(self.w_out))
        self.load_E.copy_(rows.ends_E.diff(prepend=rows.ends_E.new_zeros(1)))
        x_RD = Dispatch.apply(low_MD, rows)
        y_RD = expert_mm(swiglu(expert_mm(x_RD, self.w_in, rows)), self.w_out, rows)
        y_MD = cast(Tensor, Combine.apply(y_RD, weight_MK, rows))
        return y_MD if self.shared is None else y_MD + self.shared(low_MD)


class Block(nn.Module):
    """Attention, then a dense or MoE block, each on a normed copy and added to the stream."""

    def __init__(self, a: Architecture, layer: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = RMSNorm(a.d_model), Attention(a)
        self.norm = RMSNorm(a.d_model)
        dense = layer < a.num_dense_layers
        self.feed_forward: FeedForward | MoE = FeedForward(a.d_model, a.d_ff) if dense else MoE(a)

    def forward(self, x_NTD: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
        """(N, T, D) to (N, T, D), fp32."""
        dtype = self.attention.w_qkv.dtype
        x_NTD = x_NTD + self.attention(self.attention_norm(x_NTD).to(dtype), cos_TR, sin_TR)
        h_MD = self.norm(x_NTD).flatten(0, 1)
        if isinstance(self.feed_forward, FeedForward):
            h_MD = h_MD.to(dtype)
        return x_NTD + self.feed_forward(h_MD).view_as(x_NTD)


def shift(x_NTD: Tensor, parts: int) -> Tensor:
    """The last (parts - 1)/parts of each token's features replaced by those of the tokens before it, one part each.

    Token shift (Peng et al. 2023, arXiv 2305.13048, section 3.1) without params; zeros before the first token.
    """
    pieces = list(x_NTD.tensor_split(parts, dim=-1))
    for back in range(1, parts):
        pieces[back] = F.pad(pieces[back], (0, 0, back, 0))[:, : x_NTD.shape[1]]
    return torch.cat(pieces, dim=-1)


class Model(nn.Module):
    """The proxy of one `Architecture`; it has exactly that many params. Raises `UsageError` for unsupported fields.

    Weights come from `seed` alone and are the same on every device. With `parts` above 1 the embeddings are shifted.
    """

    cos_TR: Tensor
    sin_TR: Tensor

    def __init__(self, architecture: Architecture, seq_len: int, seed: int = 0, parts: int = 1) -> None:
        super().__init__()
        check_architecture(architecture)
        self.parts = parts
        a = self.architecture = architecture
        self.embedding = nn.Parameter(torch.empty(a.vocab_size, a.d_model))
        self.blocks = nn.ModuleList(Block(a, layer) for layer in range(a.num_layers))
        self.norm = RMSNorm(a.d_model)
        self.head = None if a.tied_embeddings else nn.Parameter(torch.empty(a.vocab_size, a.d_model))
        cos_TR, sin_TR = rotary_table(seq_len, a.head_dim)
        self.register_buffer("cos_TR", cos_TR)
        self.register_buffer("sin_TR", sin_TR)
        assert sum(p.numel() for p in self.parameters()) == a.total_params()
        self._initialise(seed)

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        into_stream = (2 * self.architecture.num_layers) ** -0.5

        def fill(weight: Tensor, fan_in: int, scale: float = 1.0) -> None:
            weight.normal_(0.0, scale * fan_in**-0.5, generator=generator)

        fill(self.embedding, 1)
        for module in self.modules():
            if isinstance(module, Attention):
                fill(module.w_qkv, module.w_qkv.shape[1])
                fill(module.w_out, module.w_out.shape[1], into_stream)
            elif isinstance(module, FeedForward):
                fill(module.w_in, module.w_in.shape[1])
                fill(module.w_out, module.w_out.shape[1], into_stream)
            elif isinstance(module, MoE):
                fill(module.router, module.router.shape[1])
                fill(module.w_in, module.w_in.shape[1])
                fill(module.w_out, module.w_out.shape[1], into_stream)
        if self.head is not None:
            self.head.zero_()

    @property
    def moe_layers(self) -> Sequence[MoE]:
        """The MoE layers from first to last."""
        return [module for module in self.modules() if isinstance(module, MoE)]

    @property
    def matrix_type(self) -> torch.dtype:
        """Type of the matrix products."""
        return cast(Block, self.blocks[0]).attention.w_qkv.dtype

    @property
    def expert_products(self) -> ProductPath | None:
        """By what the experts' rows are multiplied; None for a dense model."""
        layers = self.moe_layers
        paths = {product_path(weight) for layer in layers for weight in (layer.w_in, layer.w_out)}
        return max(paths, default=None)

    def logits(self, ids_NT: Tensor) -> Tensor:
        """(N, T) token ids to (N, T, V) logits, in the matrices' type."""
        x_NTD = F.embedding(ids_NT, self.embedding)
        if self.parts > 1:
            x_NTD = shift(x_NTD, self.parts)
        t = ids_NT.shape[1]
        for block in self.blocks:
            x_NTD = block(x_NTD, self.cos_TR[:t], self.sin_TR[:t])
        x_NTD = self.norm(x_NTD)
        if self.head is None:  # the embedding is kept in fp32, in which most GPUs are ten times slower
            kind = self.matrix_type
            return F.linear((x_NTD / self.architecture.d_model).to(kind), self.embedding.to(kind))
        return F.linear(x_NTD.to(self.head.dtype), self.head)

    def forward(self, ids_NT: Tensor, targets_NT: Tensor) -> Tensor:
        """Loss of every position (N, T) [nats], fp32; 0 where the target is -1."""
        logits_MV = self.logits(ids_NT).flatten(0, 1).float()
        return F.cross_entropy(logits_MV, targets_NT.flatten(), ignore_index=-1, reduction="none").view_as(targets_NT)
