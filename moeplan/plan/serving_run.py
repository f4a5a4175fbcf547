"""Serving of a plan's model as a plan says it: `ServingUse`, with decode steps by batch and context."""

from __future__ import annotations

from dataclasses import dataclass

from moeplan.cost.serving.concurrency import Concurrency
from moeplan.cost.serving.roofline import DecodePoint
from moeplan.plan.life import ServedLoad
from moeplan.records import Line


@dataclass(frozen=True)
class ServingPoint(DecodePoint):
    """A decode step, at best (`moeplan.cost.serving.roofline`) and as it is to be expected."""

    expected_tokens_per_second_per_user: float
    """Tokens a second of each user, expected (`moeplan.cost.serving.throughput`)."""
    expected_tokens_per_second_per_gpu: float
    """Tokens a second of one device, expected."""


@dataclass(frozen=True)
class ServingUse:
    """How many users are served at a time, and how fast. What fits is asked of the plan's own memory limit."""

    device: Line
    """The device."""
    num_devices: int
    """How many of them serve one copy; 0 if 1024 do not hold it."""
    concurrency: Concurrency | None
    """Sequences of the stated context, and their speed; null if 1024 devices do not hold one."""
    load: ServedLoad | None
    """Prompts and answers that serve_gpus serve; null without them."""
    points: tuple[ServingPoint, ...]
    """Decode steps by batch and context; empty if 1024 devices do not hold the model."""
    prefill_flops: dict[Line, float]
    """FLOPs of a prompt, by its tokens."""
    prefill_seconds: dict[Line, float]
    """Least time of a prompt on all the devices [s], by its tokens."""
