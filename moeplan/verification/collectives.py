"""Collective operations between the ranks of a torchrun, within a node and between nodes."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from moeplan.cost.measured import Collective
from moeplan.errors import UsageError
from moeplan.verification.device import wait

BYTES = {"cuda": 2**28, "cpu": 2**22}
"""Bytes of an operation's input that one device holds."""
ROUNDS = 7
"""Repeats of an operation after one that is not timed; their median counts."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a torchrun, or this one alone."""

    rank: int
    """Number of this one."""
    device: str
    """The device it measures on."""
    groups: dict[str, Any] = field(default_factory=dict)
    """Process groups with more than this one, by where: node, network."""

    def all_to_all(self, where: torch.device) -> dict[str, Collective]:
        """Every rank sends a part of what it holds to each other rank."""
        import torch.distributed as dist

        def run(group: Any, held: torch.Tensor, ranks: int) -> None:
            dist.all_to_all_single(out[: held.numel()], held, group=group)

        out = torch.empty(BYTES[where.type], dtype=torch.uint8, device=where)
        return {
            name: self._time(group, where, BYTES[where.type], lambda ranks, size: size * (ranks - 1) / ranks, run)
            for name, group in self.groups.items()
        }

    def all_gather(self, where: torch.device) -> dict[str, Collective]:
        """Every rank sends what it holds to all others."""
        import torch.distributed as dist

        def run(group: Any, held: torch.Tensor, ranks: int) -> None:
            dist.all_gather_into_tensor(out[: held.numel() * ranks], held, group=group)

        out = torch.empty(2 * BYTES[where.type], dtype=torch.uint8, device=where)
        return {
            name: self._time(
                group,
                where,
                BYTES[where.type] // dist.get_world_size(group),
                lambda ranks, size: size * (ranks - 1),
                run,
            )
            for name, group in self.groups.items()
        }

    def _time(self, group: Any, where: torch.device, size: int, sent: Any, run: Any) -> Collective:
        import torch.distributed as dist

        ranks = dist.get_world_size(group)
        size = size // ranks * ranks
        held = torch.randint(0, 255, (size,), dtype=torch.uint8, device=where)
        times = []
        for _ in range(ROUNDS + 1):
            dist.barrier(group)
            wait(where)
            start = time.perf_counter()
            run(group, held, ranks)
            wait(where)
            slowest = torch.tensor([time.perf_counter() - start], dtype=torch.float64, device=where)
            dist.all_reduce(slowest, dist.ReduceOp.MAX, group=group)
            times.append(float(slowest))
        seconds = statistics.median(times[1:])
        return Collective(ranks, size, seconds, sent(ranks, size) / seconds)


@contextmanager
def group(device: str) -> Iterator[Ranks]:
    """The ranks of the torchrun that this process belongs to; one rank outside of any.

    Raises `UsageError` if a process has no GPU of its own, or the ranks cannot meet.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(0, device)
        return
    import torch.distributed as dist

    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", str(size)))
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        if local >= torch.cuda.device_count():
            raise UsageError(f"rank {rank} has no GPU of its own: {torch.cuda.device_count()} for {per_node} ranks")
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("nccl" if cuda else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"the ranks of torchrun cannot meet: {str(error).splitlines()[0]}") from None
    try:
        groups = {}
        for name, members in _members(size, per_node).items():
            for ranks in members:  # every rank takes part in making every group
                made = dist.new_group(ranks)
                if rank in ranks and len(ranks) > 1:
                    groups[name] = made
        yield Ranks(rank, f"cuda:{local}" if cuda else "cpu", groups)
    finally:
        dist.destroy_process_group()


def _members(size: int, per_node: int) -> dict[str, list[list[int]]]:
    """Ranks of one node, and ranks of one place in every node."""
    return {
        "node": [list(range(first, first + per_node)) for first in range(0, size, per_node)],
        "network": [list(range(place, size, per_node)) for place in range(per_node)],
    }
