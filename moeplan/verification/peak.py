"""The peak of this process on a device: its best matrix product."""

from __future__ import annotations

import functools
import time

import torch

_MATMUL_SIZE = {"cpu": 768, "cuda": 8192}
"""Edge of the square product that the peak is measured by."""


@functools.cache
def matmul_flops(device: str, precision: str) -> float:
    """Peak of this process on a device [FLOP/s]: the best of a few square matrix products, measured once."""
    where = torch.device(device)
    size = _MATMUL_SIZE[where.type]
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(size, size, device=where, dtype=torch.float32).to(kind)
    best = float("inf")
    for _ in range(5):
        wait(where)
        start = time.perf_counter()
        torch.mm(a, a)
        wait(where)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def wait(device: torch.device) -> None:
    """Until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
