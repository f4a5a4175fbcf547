"""The device that a process computes on: which one, its name, and its fastest matrix product."""

from __future__ import annotations

import functools
import platform
import time

import torch

from moeplan.errors import UsageError
from moeplan.verification.speed import PRECISIONS

_MATMUL_SIZES = {"cpu": (256, 768), "cuda": (8192,)}
"""Edges of the square products that the peak is measured by: caches of CPUs differ in what suits them best."""
_MATMUL_SECONDS = 0.1
"""No further product of one edge is timed after so long: a CPU without bf16's instructions takes .2 s for one."""


def pick_device(device: str = "auto") -> torch.device:
    """auto is the first GPU where there is one, else the CPU; raises `UsageError` for a device torch does not have."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        if chosen.type not in ("cpu", "cuda"):
            raise RuntimeError("proxies are trained on a CPU or a CUDA GPU")
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        others = "auto or cpu" if device == "cuda" else "auto, cpu or cuda"
        raise UsageError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}; give {others}") from None
    return chosen


def device_name(device: torch.device) -> str:
    """A device's name in results."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU {platform.machine()}, {torch.get_num_threads()} thread" + "s" * (torch.get_num_threads() > 1)


@functools.cache
def matmul_flops(device: str, precision: str) -> float:
    """Peak of this process on a device [FLOP/s]: the best of a few square matrix products, measured once."""
    where = torch.device(device)
    return max(_product_flops(where, precision, size) for size in _MATMUL_SIZES[where.type])


def fastest_flops(device: str) -> float:
    """The same in whichever type is faster [FLOP/s]: what a share of the device's speed is a share of."""
    return max(matmul_flops(device, precision) for precision in PRECISIONS)


def _product_flops(where: torch.device, precision: str, size: int) -> float:
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(size, size, device=where, dtype=torch.float32).to(kind)
    best, begin = float("inf"), time.perf_counter()
    for turn in range(6):
        if turn > 1 and time.perf_counter() - begin > _MATMUL_SECONDS:
            break
        wait(where)
        start = time.perf_counter()
        torch.mm(a, a)
        wait(where)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def wait(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
