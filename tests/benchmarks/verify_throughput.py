"""Speed of the MoE training step beside transformers' MoE and a plain loop.

`python -m tests.benchmarks.verify_throughput [THREADS]` prints a table. One MoE layer with its router, forward and
backward, same shapes, same weights, same device, same run: the implementations take turns and each keeps its best time.
Every turn has a batch of its own, as in training, so that the loads of experts differ from turn to turn.
MFU is of the layer's matrix products (6 FLOPs a param a token) against the best square product of the same type
measured here. As a test (`pytest tests/benchmarks/verify_throughput.py`): never slower than transformers' default
back-end on a CPU, at least 3 times as fast on a GPU. Needs torch and transformers (the extra `export-test`).
"""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from moeplan.architecture.shape import Architecture

TOKENS = {"cpu": 2304, "cuda": 16384}
"""Tokens of a step: Step Law's batch at 2 MB of data, and what fills a GPU at proxy sizes."""
SHAPES = (
    (32, 16, 64, 4),
    (48, 24, 64, 4),
    (64, 32, 16, 2),
    (64, 32, 64, 8),
    (96, 48, 32, 4),
    (128, 64, 64, 8),
    (256, 128, 16, 2),
    (256, 128, 64, 8),
)
"""(d_model, d_expert, num_experts, num_active_experts) of proxies."""
BACKENDS = ("eager", "batched_mm", "grouped_mm")
"""transformers' experts back-ends that need no further package."""
MAX_GATHERED = 1e8
"""Weights that batched_mm may copy a step; it copies an expert for every row, beyond this for seconds on end."""
ROUNDS = int(os.environ.get("MOEPLAN_BENCHMARK_ROUNDS", "7"))
MIN_GPU_RATIO = 3.0
TOLERANCE = 1.05
"""Times of one run repeat to a few percent on a shared machine."""


@dataclass(frozen=True)
class Row:
    """One shape and type, each implementation's best seconds a step."""

    shape: tuple[int, int, int, int]
    precision: str
    seconds: dict[str, float]
    default: str
    """transformers' default back-end."""
    peak: float
    """Best square matrix product [FLOP/s]."""
    device: str

    @property
    def ratio(self) -> float:
        """How many times as fast as transformers' default back-end."""
        return self.seconds[self.default] / self.seconds["ours"]

    @property
    def ratio_to_fastest(self) -> float:
        """How many times as fast as transformers' fastest back-end."""
        return min(value for name, value in self.seconds.items() if name in BACKENDS) / self.seconds["ours"]

    def flops(self) -> float:
        """Of one step: forward and backward of router and the experts that a token reaches."""
        d_model, d_expert, num_experts, active = self.shape
        return 6.0 * TOKENS[self.device] * (3 * d_model * d_expert * active + d_model * num_experts)


def architecture(shape: tuple[int, int, int, int]) -> Architecture:
    """One MoE layer of that shape without shared experts, which transformers' block does not have."""
    d_model, d_expert, num_experts, active = shape
    return Architecture(
        d_model=d_model, num_layers=1, vocab_size=256, num_heads=2, head_dim=16, num_experts=num_experts,
        num_active_experts=active, d_expert=d_expert, qk_norm="head",
    )  # fmt: skip


def implementations(shape: tuple[int, int, int, int], precision: str, device: str) -> tuple[dict[str, Any], str]:
    """Modules from (1, M, D) to (M, D) or (1, M, D) with one set of weights, and the default back-end's name."""
    import torch
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeForCausalLM

    from moeplan.verification.model import MoE

    d_model, d_expert, num_experts, active = shape
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    torch.manual_seed(0)
    ours = MoE(architecture(shape)).to(device)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(0.0, parameter.shape[1] ** -0.5)
    for name in ("w_in", "w_out"):
        setattr(ours, name, torch.nn.Parameter(getattr(ours, name).detach().to(kind)))
    made: dict[str, Any] = {"ours": ours}
    default = ""
    for backend in BACKENDS:
        config = Qwen3MoeConfig(
            hidden_size=d_model, moe_intermediate_size=d_expert, num_experts=num_experts, num_experts_per_tok=active,
            num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=16, vocab_size=256,
            intermediate_size=64,
        )  # fmt: skip
        model = Qwen3MoeForCausalLM(config)
        default = default or config._experts_implementation
        model.set_experts_implementation(backend)
        block = model.model.layers[0].mlp.to(device)
        with torch.no_grad():
            block.gate.weight.copy_(ours.router)
            block.experts.gate_up_proj.copy_(ours.w_in.transpose(1, 2))
            block.experts.down_proj.copy_(ours.w_out.transpose(1, 2))
        if backend != "batched_mm" or TOKENS[device] * active * 3 * d_model * d_expert <= MAX_GATHERED:
            made[backend] = block.to(kind)
    made["loop"] = Loop(ours)
    return made, default


class Loop:
    """The plain loop over experts with the weights of `MoE`: mask, select, multiply, add."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def parameters(self) -> Any:
        """Those of the layer."""
        return self.layer.parameters()

    def __call__(self, x_MD: Any) -> Any:
        """(M, D) to (M, D)."""
        import torch.nn.functional as F

        layer = self.layer
        ids_MK, weight_MK = layer.route(x_MD)
        y_MD = x_MD.new_zeros(x_MD.shape)
        for expert in range(layer.num_experts):
            token, choice = (ids_MK == expert).nonzero(as_tuple=True)
            gate, up = (x_MD[token] @ layer.w_in[expert]).chunk(2, dim=-1)
            made = (F.silu(gate) * up) @ layer.w_out[expert]
            y_MD = y_MD.index_add(0, token, made * weight_MK[token, choice, None].to(made.dtype))
        return y_MD


def measure(shape: tuple[int, int, int, int], precision: str, device: str) -> Row:
    """Best of `ROUNDS` turns of every implementation."""
    import torch

    from moeplan.verification.device import matmul_flops

    made, default = implementations(shape, precision, device)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    upstream = torch.randn(TOKENS[device], shape[0], device=device).to(kind)
    steps = {name: _step(module, upstream, name) for name, module in made.items()}
    best = dict.fromkeys(steps, float("inf"))
    for turn in range(ROUNDS + 1):
        x = torch.randn(TOKENS[device], shape[0], device=device).to(kind).requires_grad_()
        for name, step in steps.items():
            if turn > 2 and name not in ("ours", default) and best[name] > 1.5 * best["ours"]:
                continue  # settled
            _wait(device)
            start = time.perf_counter()
            step(x)
            _wait(device)
            if turn:  # the first turn warms up
                best[name] = min(best[name], time.perf_counter() - start)
    return Row(shape, precision, best, default, matmul_flops(device, precision), device)


def _step(module: Any, upstream: Any, name: str) -> Callable[[Any], None]:
    import torch

    parameters = [p for p in module.parameters() if p.requires_grad]

    def step(x: Any) -> None:
        y = module(x[None] if name in BACKENDS else x)
        torch.autograd.grad(y.reshape(upstream.shape), [x, *parameters], upstream.to(y.dtype))

    return step


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


NAMES = ("ours", *BACKENDS, "loop")
HEADER = (
    f"{'d_model x d_expert, E, k':26}{'type':6}{''.join(f'{n:>20}' for n in NAMES)}{'/default':>10}{'/fastest':>10}"
)


def line(row: Row) -> str:
    """Tokens per second and MFU of one shape and type."""
    cells = []
    for name in NAMES:
        seconds = row.seconds.get(name)
        if seconds is None:
            cells.append(f"{'-':>19} ")
        else:
            mark = "*" if name == row.default else " "
            cells.append(f"{TOKENS[row.device] / seconds:>12,.0f} {row.flops() / seconds / row.peak:>6.1%}{mark}")
    d_model, d_expert, num_experts, active = row.shape
    shape = f"{d_model} x {d_expert}, {num_experts}, {active}"
    return f"{shape:26}{row.precision:6}{''.join(cells)}{row.ratio:>10.2f}{row.ratio_to_fastest:>10.2f}"


def main() -> None:
    """Measure every shape and print the table."""
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU {platform.machine()}, {threads} thread(s)"
    print(f"{name}; torch {torch.__version__}, transformers {transformers.__version__}; {TOKENS[device]} tokens a step")
    print(HEADER)
    rows = []
    for shape, precision in itertools.product(SHAPES, ("fp32", "bf16")):
        rows.append(measure(shape, precision, device))
        print(line(rows[-1]), flush=True)
    mean = statistics.geometric_mean(row.ratio for row in rows)
    print(f"tokens/s and MFU of forward + backward; * is transformers' default back-end; geometric mean {mean:.2f}")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
def test_never_slower_than_transformers(
    shape: tuple[int, int, int, int], precision: str, record_property: Callable[[str, object], None]
) -> None:
    """On a CPU the layer is at least as fast as transformers' default back-end, on a GPU at least 3 times as fast."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    row = measure(shape, precision, device)
    least = MIN_GPU_RATIO if device == "cuda" else 1 / TOLERANCE
    record_property(f"{shape} {precision}", f"{row.ratio:.2f} x {row.default} (at least {least:.2f})")
    assert row.ratio >= least


if __name__ == "__main__":
    main()
