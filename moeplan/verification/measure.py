"""`moeplan hardware --measure`: in about a minute, what this device does in training, as a device's file.

One dense and one MoE layer first, forward and backward, because they say most about a design's time; then what a model
of the time is made of: products, grouped products, attention, moving rows, starting operations and waiting for them.
Under torchrun also all-to-all and all-gather (`moeplan.verification.collectives`).

Everything is measured on random data: some products are faster on zeros.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import moeplan
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import bundled_device
from moeplan.cost.measured import MeasuredSpeeds, TimedLayer
from moeplan.verification import collectives
from moeplan.verification.device import pick_device, wait
from moeplan.verification.experts import product_path
from moeplan.verification.model import Block, MoE, attend, rotary_table

Operation = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """Sizes that are measured on one kind of device."""

    product: int
    """Edge of the large product."""
    grouped: tuple[int, int, int]
    """Experts, rows and columns of the grouped products."""
    attention: tuple[int, int, int, int]
    """Sequences, heads, tokens and head_dim."""
    moved: tuple[int, int]
    """Tokens and features that are permuted; each token to 4 rows."""
    dense: dict[str, Any]
    """The dense layer."""
    moe: dict[str, Any]
    """The MoE layer."""
    sequences: int
    """Sequences that a layer reads."""
    seq_len: int
    """Tokens of each."""
    repeat_seconds: float
    """Least time that a measurement is repeated for."""


_GPU_DENSE = {"d_model": 4096, "num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "d_ff": 14336}
_GPU_MOE = {"d_model": 2048, "num_heads": 32, "num_kv_heads": 4, "head_dim": 128, "num_experts": 128,
            "num_active_experts": 8, "d_expert": 768, "num_dense_layers": 0}  # fmt: skip
SIZES = {
    # the layers of Llama 3 8B and Qwen3-30B-A3B
    "large": Sizes(8192, (32, 2048, 1536), (2, 32, 4096, 128), (32768, 2048), _GPU_DENSE, _GPU_MOE, 2, 4096, 0.3),
    "small": Sizes(
        4096, (16, 1024, 1024), (1, 16, 4096, 64), (16384, 1024),
        {"d_model": 1024, "num_heads": 16, "num_kv_heads": 4, "head_dim": 64, "d_ff": 3584},
        {"d_model": 1024, "num_heads": 16, "num_kv_heads": 4, "head_dim": 64, "num_experts": 32,
         "num_active_experts": 4, "d_expert": 512, "num_dense_layers": 0}, 1, 4096, 0.3,
    ),
    "cpu": Sizes(
        1024, (8, 256, 256), (1, 4, 1024, 64), (32768, 256),
        {"d_model": 256, "num_heads": 4, "num_kv_heads": 2, "head_dim": 64, "d_ff": 768},
        {"d_model": 256, "num_heads": 4, "num_kv_heads": 2, "head_dim": 64, "num_experts": 16,
         "num_active_experts": 2, "d_expert": 128, "num_dense_layers": 0}, 2, 512, 0.2,
    ),
}  # fmt: skip
LARGE_BYTES = 24e9
"""Free memory of a GPU from which the large sizes are taken."""
TOKENS_PER_EXPERT = (128, 512, 2048)
"""Loads at which grouped products are measured."""
SUSTAINED_SECONDS = 5.0
"""How long the large product is repeated: a GPU slows down as it warms up."""
BACKWARD_ATTENTION = 2.5
"""Work of attention's backward pass over its forward pass: five products for two."""
LAUNCHES = 2000
"""Small operations in a row, by which the time to start one is measured."""


def measure(device: str = "auto") -> dict[str, Any] | None:
    """A device's file as a mapping; None on every rank but the first of a torchrun.

    Raises `UsageError` for a device that torch does not have.
    """
    with collectives.group(device) as ranks:
        where = pick_device(ranks.device)
        cuda = where.type == "cuda"
        free = torch.cuda.mem_get_info(where)[0] if cuda else 0
        sizes = SIZES["cpu" if not cuda else "large" if free >= LARGE_BYTES else "small"]
        kind = _faster_type(where, sizes)
        found = _measured(where, kind, sizes, ranks)
        return _as_file(where, found) if ranks.rank == 0 else None


def _measured(where: torch.device, kind: torch.dtype, sizes: Sizes, ranks: collectives.Ranks) -> MeasuredSpeeds:
    dense, moe = (_layer(shape, where, kind, sizes) for shape in (sizes.dense, sizes.moe))
    product = _sustained_product(where, kind, sizes.product, SUSTAINED_SECONDS)
    grouped, gradient = _grouped(where, kind, sizes)
    attention, backward = _attention(where, kind, sizes)
    copied, permuted = _moving(where, kind, sizes)
    launch, sync = _host(where)
    return MeasuredSpeeds(
        precision="bf16" if kind == torch.bfloat16 else "fp32",
        product_flops=product,
        product_size=sizes.product,
        grouped_product_flops=grouped,
        grouped_gradient_flops=gradient,
        grouped_shape=sizes.grouped,
        attention_flops=attention,
        attention_backward_flops=backward,
        attention_shape=sizes.attention,
        copy_bytes_per_second=copied,
        permute_bytes_per_second=permuted,
        launch_seconds=launch,
        sync_seconds=sync,
        dense_layer=dense,
        moe_layer=moe,
        all_to_all=ranks.all_to_all(where),
        all_gather=ranks.all_gather(where),
        versions=_versions(where),
    )


def _as_file(where: torch.device, found: MeasuredSpeeds) -> dict[str, Any]:
    """A device's row: data-sheet figures where the device is a bundled one, measured ones elsewhere."""
    from moeplan import records

    if where.type == "cuda":
        name = torch.cuda.get_device_name(where)
        memory = torch.cuda.get_device_properties(where).total_memory
    else:
        name, memory = f"CPU {platform.machine()}, {torch.get_num_threads()} threads", _system_memory()
    known = bundled_device(name)
    row: dict[str, Any] = {"name": name}
    if known is None:
        row["bf16_tflops"] = _round(found.product_flops / 1e12)
    else:
        row["bf16_tflops"] = _round(known.bf16_flops / 1e12)
        if known.fp8_flops is not None:
            row["fp8_tflops"] = _round(known.fp8_flops / 1e12)
    row["memory_gb"] = _round(memory / 1e9)
    row["bandwidth_gbs"] = _round((found.copy_bytes_per_second if known is None else known.bandwidth) / 1e9)
    if known is not None and known.link_bandwidth is not None:
        row["link_gbs"], row["link_domain"] = _round(known.link_bandwidth / 1e9), known.link_domain
    if known is not None:
        row["network_gbs"], row["kernels"] = _round(known.network_bandwidth / 1e9), known.kernels
        if known.watts is not None:
            row["watts"] = _round(known.watts)
    peaks = "peak and bandwidth are the measured ones" if known is None else f"data-sheet figures of {known.name}"
    row["source"] = f"moeplan hardware --measure {moeplan.__version__}; {peaks}"
    row["confidence"] = "measured"
    row["measured"] = records.to_json(found)
    return row


def _round(value: float) -> float:
    return float(f"{value:.5g}")


def _versions(where: torch.device) -> dict[str, str]:
    versions = {"moeplan": moeplan.__version__, "torch": str(torch.__version__), "python": platform.python_version()}
    if where.type == "cuda":
        major, minor = torch.cuda.get_device_capability(where)
        versions["compute capability"] = f"{major}.{minor}"
    return versions


def _system_memory() -> int:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# Timing -------------------------------------------------------------------------------------------------------------


def median_seconds(operation: Operation, where: torch.device, least: float) -> float:
    """Median time of an operation over batches of calls that take `least` in all [s]; two calls warm up."""
    for _ in range(2):
        operation()
    wait(where)
    start = time.perf_counter()
    operation()
    wait(where)
    batches = 5
    calls = max(1, int(least / batches / max(time.perf_counter() - start, 1e-7)))
    times = []
    for _ in range(batches):
        start = time.perf_counter()
        for _ in range(calls):
            operation()
        wait(where)
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


def _random(where: torch.device, kind: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(*shape, device=where, dtype=kind)


def _faster_type(where: torch.device, sizes: Sizes) -> torch.dtype:
    if where.type == "cuda":
        return torch.bfloat16

    def seconds(kind: torch.dtype) -> float:
        a = _random(where, kind, sizes.product, sizes.product)
        return median_seconds(lambda: torch.mm(a, a), where, 0.1)

    return min((torch.bfloat16, torch.float32), key=seconds)


# What is measured ---------------------------------------------------------------------------------------------------


def _layer(shape: dict[str, Any], where: torch.device, kind: torch.dtype, sizes: Sizes) -> TimedLayer:
    architecture = Architecture(num_layers=1, vocab_size=256, qk_norm="head", **shape)
    block = Block(architecture, 0).to(where)
    moe = block.feed_forward if isinstance(block.feed_forward, MoE) else None
    with torch.no_grad():
        for p in block.parameters():
            if p.ndim > 1:
                p.normal_(0.0, p.shape[-2 if p.ndim == 3 else -1] ** -0.5)
                if moe is None or p is not moe.router:
                    p.data = p.data.to(kind)
    x_NTD = _random(where, torch.float32, sizes.sequences, sizes.seq_len, architecture.d_model).requires_grad_()
    upstream = torch.randn_like(x_NTD)
    tables = [table.to(where) for table in rotary_table(sizes.seq_len, architecture.head_dim)]
    wanted = [x_NTD, *block.parameters()]

    def step() -> object:
        return torch.autograd.grad(block(x_NTD, *tables), wanted, upstream)

    seconds = median_seconds(step, where, sizes.repeat_seconds)
    tokens = sizes.sequences * sizes.seq_len
    return TimedLayer(
        architecture=architecture.to_dict(),
        sequences=sizes.sequences,
        seq_len=sizes.seq_len,
        seconds=seconds,
        graph_seconds=_graph_seconds(step, where, sizes.repeat_seconds),
        flops=float(architecture.flops_per_token(sizes.seq_len, logits=False) * tokens),
        expert_products=product_path(moe.w_in) if moe is not None else None,
    )


def _graph_seconds(step: Operation, where: torch.device, least: float) -> float | None:
    """The step as one CUDA graph; None on a CPU, and where it cannot be captured."""
    if where.type != "cuda":
        return None
    side = torch.cuda.Stream(where)
    side.wait_stream(torch.cuda.current_stream(where))
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream(where).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step()
    except RuntimeError:
        return None
    return median_seconds(graph.replay, where, least)


def _sustained_product(where: torch.device, kind: torch.dtype, size: int, seconds: float) -> float:
    a, b = _random(where, kind, size, size), _random(where, kind, size, size)
    out = torch.empty_like(a)
    once = median_seconds(lambda: torch.mm(a, b, out=out), where, 0.1)
    calls, done = max(1, int(0.2 / once)), 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(calls):
            torch.mm(a, b, out=out)
        wait(where)
        done += calls
    return 2.0 * size**3 * done / (time.perf_counter() - start)


def _grouped(where: torch.device, kind: torch.dtype, sizes: Sizes) -> tuple[dict[str, float], dict[str, float]]:
    """Forward products and those of the weights' gradient, by tokens of an expert."""
    num_experts, d_in, d_out = sizes.grouped
    w_EDF = _random(where, kind, num_experts, d_in, d_out)
    forward, gradient = {}, {}
    for tokens in TOKENS_PER_EXPERT:
        x_RD, grad_RF = (_random(where, kind, num_experts * tokens, width) for width in (d_in, d_out))
        if product_path(w_EDF) == "grouped_mm":
            ends_E = torch.arange(1, num_experts + 1, device=where, dtype=torch.int32) * tokens
            there, back = _grouped_operations(x_RD, w_EDF, grad_RF, ends_E)
        else:
            there, back = _batched_operations(x_RD, w_EDF, grad_RF, tokens)
        flops = 2.0 * num_experts * tokens * d_in * d_out
        forward[str(tokens)] = flops / median_seconds(there, where, sizes.repeat_seconds)
        gradient[str(tokens)] = flops / median_seconds(back, where, sizes.repeat_seconds)
    return forward, gradient


def _grouped_operations(x_RD: Tensor, w_EDF: Tensor, grad_RF: Tensor, ends_E: Tensor) -> tuple[Operation, Operation]:
    return lambda: F.grouped_mm(x_RD, w_EDF, offs=ends_E), lambda: F.grouped_mm(x_RD.T, grad_RF, offs=ends_E)


def _batched_operations(x_RD: Tensor, w_EDF: Tensor, grad_RF: Tensor, tokens: int) -> tuple[Operation, Operation]:
    x_ETD, grad_ETF = x_RD.view(len(w_EDF), tokens, -1), grad_RF.view(len(w_EDF), tokens, -1)
    return lambda: torch.bmm(x_ETD, w_EDF), lambda: torch.bmm(x_ETD.transpose(1, 2), grad_ETF)


def _attention(where: torch.device, kind: torch.dtype, sizes: Sizes) -> tuple[float, float]:
    n, h, t, c = sizes.attention
    q, k, v = (_random(where, kind, n, h, t, c).requires_grad_() for _ in range(3))
    flops = 2 * 2.0 * n * h * t * t * c / 2  # two products over half of the scores
    with torch.no_grad():
        forward = median_seconds(lambda: attend(q, k, v), where, sizes.repeat_seconds)
    y = attend(q, k, v)
    upstream = torch.randn_like(y)
    backward = median_seconds(
        lambda: torch.autograd.grad(y, (q, k, v), upstream, retain_graph=True), where, sizes.repeat_seconds
    )
    return flops / forward, BACKWARD_ATTENTION * flops / backward


def _moving(where: torch.device, kind: torch.dtype, sizes: Sizes) -> tuple[float, float]:
    """Bytes read and written a second by a copy and by gathering rows."""
    tokens, width = sizes.moved
    x_MD = _random(where, kind, tokens, width)
    token_R = torch.arange(4 * tokens, device=where)[torch.randperm(4 * tokens, device=where)] % tokens
    rows_RD = x_MD.new_empty(4 * tokens, width)
    size = 2.0 * rows_RD.numel() * rows_RD.element_size()
    source = rows_RD.clone()
    copied = median_seconds(lambda: rows_RD.copy_(source), where, sizes.repeat_seconds)
    gathered = median_seconds(lambda: torch.index_select(x_MD, 0, token_R, out=rows_RD), where, sizes.repeat_seconds)
    return size / copied, size / gathered


def _host(where: torch.device) -> tuple[float, float]:
    """Time to start a small operation, and one with waiting for its result [s]."""
    x = torch.zeros(64, device=where)

    def many() -> None:
        for _ in range(LAUNCHES):
            x.add_(1.0)

    launch = median_seconds(many, where, 0.0) / LAUNCHES
    return launch, median_seconds(lambda: x.add_(1.0)[0].item(), where, 0.05)
