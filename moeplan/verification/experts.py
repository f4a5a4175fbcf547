"""The experts' work: tokens sorted into rows by expert, the rows times their experts' matrices, the sum back.

Three ways to multiply, chosen by type and device before anything runs (`product_path`): `grouped_mm` where torch has a
kernel for it, blocks of one size in batched products elsewhere, and a plain loop for widths neither takes. On a GPU
all shapes are fixed by the number of tokens and nothing is read back, so that a step can be captured as a graph.

Letters of shapes are those of `moeplan.verification.model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROOM = 16
"""Blocks of an expert's rows are a multiple of this: a CPU compiles a bf16 product anew for every new number."""
GROUPING_GPUS = ((9, 0), (10, 0))
"""Compute capabilities for which torch 2.10 to 2.13 has a grouped kernel (H100, H200, B200). Elsewhere its grouped_mm
reads the ends of the groups back and loops over them, which is slow and cannot be captured."""

ProductPath = Literal["grouped_mm", "blocks", "loop"]


@dataclass(frozen=True)
class Rows:
    """Which row of the experts' work is which token's: integers alone, no gradient."""

    row_MK: Tensor
    """The row of each choice of each token."""
    slot_R: Tensor
    """The choice m*K + k of each row, S for padding."""
    token_R: Tensor
    """The token of each row; any token for padding."""
    ends_E: Tensor
    """Row behind the last one of each expert, int32, without padding."""
    room: int
    """Rows of a block where experts' rows are cut into blocks of one size and padded, else 0."""
    extra_X: Tensor
    """The expert of each block behind the first E, which are one an expert."""


def sort_rows(ids_MK: Tensor, num_experts: int, *, blocks: bool) -> Rows:
    """Rows sorted by expert, by token within an expert.

    With `blocks`, each expert's rows are cut into blocks of one size, a mean load rounded up, and the last is padded.
    """
    sort = _sort_on_cpu if ids_MK.device.type == "cpu" else sort_on_device
    return sort(ids_MK, num_experts, blocks)


def sort_on_device(ids_MK: Tensor, num_experts: int, blocks: bool) -> Rows:
    """`sort_rows` in tensors alone: no number is read back and every shape follows from that of `ids_MK`.

    So there are always as many blocks behind the first E as the most uneven load needs, (S - 1) // room; those that
    are not needed are padding of the last expert.
    """
    (num_slots, active), device = (ids_MK.numel(), ids_MK.shape[1]), ids_MK.device
    ids_S, slot_S = ids_MK.flatten().sort(stable=True)
    at_S = torch.arange(num_slots, device=device)
    experts_E = torch.arange(num_experts, device=device)
    ends_E = torch.searchsorted(ids_S, experts_E, right=True)
    if not blocks:
        row_S = torch.empty_like(slot_S).index_copy_(0, slot_S, at_S)
        return Rows(row_S.view_as(ids_MK), slot_S, slot_S // active, ends_E.int(), 0, ids_S[:0])
    room = block_rows(num_slots, num_experts)
    num_extra = (num_slots - 1) // room
    load_E = ends_E.diff(prepend=ends_E.new_zeros(1))
    more_E = ((load_E - 1) // room).clamp(min=0)  # blocks of an expert behind its first
    extra_E = more_E.cumsum(0)
    # row r of an expert lies in the expert's own block if r < room, else in one behind those of all experts
    within_S = at_S - (ends_E - load_E)[ids_S]
    behind_S = (num_experts + extra_E - more_E - 1)[ids_S]
    at_S = within_S + room * torch.where(within_S < room, ids_S, behind_S)
    row_S = torch.empty_like(slot_S).index_copy_(0, slot_S, at_S)
    slot_R = slot_S.new_full(((num_experts + num_extra) * room,), num_slots).index_copy_(0, at_S, slot_S)
    extra_X = torch.searchsorted(extra_E, torch.arange(num_extra, device=device), right=True)
    return Rows(
        row_MK=row_S.view_as(ids_MK),
        slot_R=slot_R,
        token_R=(slot_R // active).clamp(max=len(ids_MK) - 1),
        ends_E=ends_E.int(),
        room=room,
        extra_X=extra_X.clamp(max=num_experts - 1),
    )


def block_rows(num_slots: int, num_experts: int) -> int:
    """Rows of a block: the mean load of an expert, rounded up to `ROOM`."""
    return -(-num_slots // (num_experts * ROOM)) * ROOM


def _sort_on_cpu(ids_MK: Tensor, num_experts: int, blocks: bool) -> Rows:
    """`sort_rows` by NumPy, which sorts these small integers by radix, ten times as fast as torch."""
    num_slots, active = ids_MK.numel(), ids_MK.shape[1]
    ids = ids_MK.numpy().ravel()
    load = np.bincount(ids, minlength=num_experts)
    starts = load.cumsum() - load
    order = ids.astype(np.uint16).argsort(kind="stable")
    rows, slots, extra, room = np.arange(num_slots), order, ids[:0], 0
    if blocks:
        room = block_rows(num_slots, num_experts)
        more = np.maximum(-(-load // room) - 1, 0)
        several = max(1, num_experts // 4)  # rounded up, so that few numbers of blocks occur
        num_extra = -(-int(more.sum()) // several) * several
        extra = np.zeros(num_extra, np.int64)
        extra[: more.sum()] = np.arange(num_experts).repeat(more)
        # row r of an expert lies in the expert's own block if r < room, else in one behind those of all experts
        within = rows - starts.repeat(load)
        behind = (num_experts + more.cumsum() - more - 1) * room
        rows = within + np.where(within < room, (np.arange(num_experts) * room).repeat(load), behind.repeat(load))
        slots = np.full((num_experts + num_extra) * room, num_slots)
        slots[rows] = order
    row_of = np.empty(num_slots, np.int64)
    row_of[order] = rows
    return Rows(
        row_MK=torch.from_numpy(row_of).view_as(ids_MK),
        slot_R=torch.from_numpy(slots),
        token_R=torch.from_numpy(np.minimum(slots // active, len(ids_MK) - 1)),
        ends_E=torch.from_numpy(load.cumsum().astype(np.int32)),
        room=room,
        extra_X=torch.from_numpy(extra),
    )


def add_rows(x_RD: Tensor, row_MK: Tensor, weight_MK: Tensor | None = None) -> Tensor:
    """y_MD = sum over k of weight_MK * x_RD[row_MK]."""
    if weight_MK is None and x_RD.is_cuda:  # the faster there
        return x_RD.index_select(0, row_MK.flatten()).view(*row_MK.shape, -1).sum(dim=1)
    return F.embedding_bag(row_MK, x_RD, mode="sum", per_sample_weights=weight_MK)  # all in one pass


class Dispatch(torch.autograd.Function):
    """Copies of the tokens as the experts read them; the gradient is gathered, never scattered, so that it repeats."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, rows: Rows) -> Tensor:
        """(M, D) to (R, D)."""
        ctx.rows = rows
        return x_MD.index_select(0, rows.token_R)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """(R, D) to (M, D)."""
        return add_rows(grads[0].contiguous(), ctx.rows.row_MK), None


class Combine(torch.autograd.Function):
    """What the experts made of each token, weighted and added; padding gets a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, weight_MK: Tensor, rows: Rows) -> Tensor:
        """(R, D) to (M, D)."""
        weight_MK = weight_MK.to(y_RD.dtype)
        ctx.save_for_backward(y_RD, weight_MK)
        ctx.rows = rows
        return add_rows(y_RD, rows.row_MK, weight_MK)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """(M, D) to (R, D) and (M, K)."""
        rows, (y_RD, weight_MK), (grad_MD,) = ctx.rows, ctx.saved_tensors, grads
        weight_S = weight_MK.flatten()
        if rows.room:
            weight_S = torch.cat([weight_S, weight_S.new_zeros(1)])
        grad_RD = grad_MD.index_select(0, rows.token_R)
        dot_R = (y_RD * grad_RD).sum(dim=-1)
        return grad_RD.mul_(weight_S[rows.slot_R, None]), dot_R[rows.row_MK], None


class Blocks(torch.autograd.Function):
    """Blocks of rows times their experts' matrices: a batched product for the first block of each, one for the rest."""

    @staticmethod
    def forward(ctx: Any, x_RD: Tensor, w_EDF: Tensor, rows: Rows) -> Tensor:
        """(R, D) to (R, F)."""
        ctx.save_for_backward(x_RD, w_EDF)
        ctx.rows = rows
        return _by_block(x_RD, w_EDF, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """(R, F) to (R, D) and (E, D, F)."""
        rows, (x_RD, w_EDF) = ctx.rows, ctx.saved_tensors
        x_BND, grad_BNF = x_RD.view(-1, rows.room, x_RD.shape[1]), grads[0].view(-1, rows.room, w_EDF.shape[2])
        x_BDN, own = x_BND.transpose(1, 2), len(w_EDF)
        grad_EDF = torch.bmm(x_BDN[:own], grad_BNF[:own])
        if len(rows.extra_X):
            grad_EDF.index_add_(0, rows.extra_X, torch.bmm(x_BDN[own:], grad_BNF[own:]))
        return _by_block(grads[0], w_EDF.transpose(1, 2), rows), grad_EDF, None


def _by_block(x_RD: Tensor, w_EDF: Tensor, rows: Rows) -> Tensor:
    x_BND, own = x_RD.view(-1, rows.room, x_RD.shape[1]), len(w_EDF)
    y_BNF = x_RD.new_empty(len(x_BND), rows.room, w_EDF.shape[2])
    torch.bmm(x_BND[:own], w_EDF, out=y_BNF[:own])
    if len(rows.extra_X):
        torch.bmm(x_BND[own:], w_EDF[rows.extra_X], out=y_BNF[own:])
    return y_BNF.flatten(0, 1)


class Grouped(torch.autograd.Function):
    """Groups of rows times their experts' matrices by torch's grouped product."""

    @staticmethod
    def forward(ctx: Any, x_RD: Tensor, w_EDF: Tensor, ends_E: Tensor) -> Tensor:
        """(R, D) to (R, F)."""
        ctx.save_for_backward(x_RD, w_EDF, ends_E)
        return F.grouped_mm(x_RD, w_EDF, offs=ends_E)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """(R, F) to (R, D) and (E, D, F)."""
        (x_RD, w_EDF, ends_E), grad_RF = ctx.saved_tensors, grads[0].contiguous()
        grad_EDF = zero_unreached(F.grouped_mm(x_RD.T, grad_RF, offs=ends_E), ends_E)
        return F.grouped_mm(grad_RF, w_EDF.transpose(1, 2), offs=ends_E), grad_EDF, None


def zero_unreached(grad_EDF: Tensor, ends_E: Tensor) -> Tensor:
    """The gradient with zeros for experts that no row reached: a B200's kernel leaves what was in memory there."""
    load_E = ends_E.diff(prepend=ends_E.new_zeros(1))
    return grad_EDF.masked_fill_((load_E == 0)[:, None, None], 0.0)


def segment_mm(x_SD: Tensor, w_EDF: Tensor, ends_E: Tensor) -> Tensor:
    """Rows of expert e, those before ends_E[e], times its matrix: the plain loop, exact for any type and width."""
    ends: list[int] = ends_E.tolist()
    starts = [0, *ends[:-1]]
    return torch.cat([x_SD[start:end] @ w for start, end, w in zip(starts, ends, w_EDF.unbind(), strict=True)])


def groupable(w_EDF: Tensor) -> bool:
    """Whether `grouped_mm` takes these weights, and fast.

    It wants rows of whole 16 bytes and fewer than 1024 experts; on a GPU bf16 and one of `GROUPING_GPUS`, on a CPU bf16
    or fp32.
    """
    kinds = (torch.bfloat16,) if w_EDF.is_cuda else (torch.bfloat16, torch.float32)
    whole = all(width * w_EDF.element_size() % 16 == 0 for width in w_EDF.shape[1:])
    if w_EDF.dtype not in kinds or not whole or len(w_EDF) >= 1024:
        return False
    return not w_EDF.is_cuda or torch.cuda.get_device_capability(w_EDF.device) in GROUPING_GPUS


def in_blocks(w_EDF: Tensor) -> bool:
    """Whether experts with these weights take their rows in blocks: in bf16 on a CPU, and on a GPU without a kernel.

    Grouped products on a CPU meet a new number of rows at every turn. With one thread of AVX512-BF16 an expert layer,
    forward and backward, took 6 times as long by them at d_model * d_expert 2048 and 1.6 times at 131072; in fp32 it
    took 0.6 to 0.9 of the time.
    """
    return not groupable(w_EDF) if w_EDF.is_cuda else w_EDF.dtype == torch.bfloat16


def product_path(w_EDF: Tensor) -> ProductPath:
    """By what the rows of experts with these weights are multiplied; the loop, which waits for the device, on CPUs."""
    return "blocks" if in_blocks(w_EDF) else "grouped_mm" if groupable(w_EDF) else "loop"


def expert_mm(x_RD: Tensor, w_EDF: Tensor, rows: Rows) -> Tensor:
    """Each row times its expert's matrix, (R, D) to (R, F)."""
    if rows.room:
        return cast(Tensor, Blocks.apply(x_RD, w_EDF, rows))
    if not groupable(w_EDF):
        return segment_mm(x_RD, w_EDF, rows.ends_E)
    if w_EDF.is_cuda:
        return cast(Tensor, Grouped.apply(x_RD, w_EDF, rows.ends_E))
    return F.grouped_mm(x_RD, w_EDF, offs=rows.ends_E)
