"""A training step as one CUDA graph, trusted only after it has repeated eager steps.

Whether a step can be captured is settled where it is written: on a GPU no part of it reads a number back or has a shape
that depends on one (`moeplan.verification.experts`). Should a capture fail all the same, its process captures nothing
more, because torch's allocator then keeps that capture open; every result says how its steps were run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

CAPTURE_STEPS = 20
"""Steps that a captured graph must repeat before it is trusted."""
CAPTURE_TOLERANCE = 1e-3
"""Largest relative difference of their losses: what bf16 sums in another order can make. On an H200, at widths of 32 to
1024, it was at most 1.3e-5 within 20 steps, as much as between two runs of eager steps."""

_failures: list[str] = []


class Repeatable(Protocol):
    """Something that trains step by step and can go back."""

    device: torch.device
    losses: Tensor

    def step(self) -> None:
        """One step, which writes its loss into `losses`."""

    def snapshot(self) -> Callable[[], None]:
        """Remember the present state; returns what brings it back."""


def fastest_step(trainer: Repeatable) -> tuple[Callable[[], None], str]:
    """On a GPU the step as a graph, if that repeats eager steps; else the eager step. Leaves the state as it was.

    The second value says which: graph, eager, or eager with the reason why there is no graph.
    """
    if trainer.device.type != "cuda":
        return trainer.step, "eager"
    if _failures:
        return trainer.step, f"eager: {_failures[0]}"
    count = min(CAPTURE_STEPS, len(trainer.losses))
    restore = trainer.snapshot()
    main, side = torch.cuda.current_stream(trainer.device), torch.cuda.Stream(trainer.device)
    side.wait_stream(main)
    with torch.cuda.stream(side):  # what a graph needs must exist before the capture: kernels, moments, workspaces
        for _ in range(count):
            trainer.step()
    main.wait_stream(side)
    eager = trainer.losses[:count].clone()
    restore()
    torch.cuda.empty_cache()  # the graph keeps memory of its own
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            trainer.step()
    except RuntimeError as error:
        torch.cuda.set_stream(main)  # a failed capture leaves its own
        _failures.append(f"the step could not be captured: {str(error).strip().splitlines()[0]}")
        restore()
        return trainer.step, f"eager: {_failures[0]}"
    for _ in range(count):
        graph.replay()
    captured = trainer.losses[:count].clone()
    restore()
    if not repeats(captured, eager):
        return trainer.step, f"eager: the losses of {count} captured steps were not those of eager ones"
    return graph.replay, "graph"


def repeats(losses: Tensor, expected: Tensor) -> bool:
    """Whether losses are those expected, but for rounding, and cease to be numbers at the same step if they do."""
    finite = expected.isfinite()
    apart = (losses - expected).abs() / expected.abs()
    return torch.equal(losses.isfinite(), finite) and bool((apart <= CAPTURE_TOLERANCE)[finite].all())
