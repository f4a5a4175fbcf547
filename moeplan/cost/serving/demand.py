"""What a model serves over its life, and on what: `Demand`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moeplan.cost.devices import Gpus, parse_gpus
from moeplan.cost.inference_memory import InferenceSettings
from moeplan.cost.serving.throughput import Load, Size, Throughput, serving_throughput
from moeplan.errors import UsageError
from moeplan.units import parse_count


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Tokens served over a model's life, by whom, and what is asked of an answer.

    `Demand(served="40T", serve_gpus="8xH100")` reads quantities as the command line does. Raises `UsageError` for
    values that cannot be.
    """

    served: float = 0.0
    """Tokens served over the life, prompts and answers both counted; 0 for none."""
    serve_gpus: Gpus | None = None
    """Devices that hold one copy of the model."""
    prompt_tokens: int = 1024
    """Tokens of a prompt."""
    answer_tokens: int = 1024
    """Tokens of an answer."""
    tokens_per_second_per_user: float = 0.0
    """Least speed of an answer [tokens/s]; 0 for none."""
    serve_price_per_gpu_hour: float | None = None
    """Price of an hour of one of `serve_gpus`, in the currency of training; None takes that of training."""

    if TYPE_CHECKING:  # what it is made from: quantities as people type them; the fields hold numbers

        def __init__(
            self,
            *,
            served: float | str = ...,
            serve_gpus: Gpus | str | None = ...,
            prompt_tokens: int = ...,
            answer_tokens: int = ...,
            tokens_per_second_per_user: float = ...,
            serve_price_per_gpu_hour: float | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        if isinstance(self.served, bool) or self.served is None:
            raise UsageError(f"served {self.served!r} must be a count, for example 40T")
        if self.served != 0:
            object.__setattr__(self, "served", parse_count(self.served, "served"))
        if self.serve_gpus is not None:
            object.__setattr__(self, "serve_gpus", parse_gpus(self.serve_gpus))
        _ = self.load
        price = self.serve_price_per_gpu_hour
        if price is not None and not (isinstance(price, (int, float)) and 0 <= price < 1e12):
            raise UsageError(f"serve_price_per_gpu_hour {price!r} must be at least 0, for example 2.5")
        for name in ("tokens_per_second_per_user", "serve_price_per_gpu_hour"):
            if getattr(self, name) and self.serve_gpus is None:
                raise UsageError(f"{name} needs serve_gpus, for example 8xH100")

    @property
    def load(self) -> Load:
        """Prompts, answers and speed."""
        return Load(
            prompt_tokens=self.prompt_tokens,
            answer_tokens=self.answer_tokens,
            tokens_per_second_per_user=self.tokens_per_second_per_user,
        )

    def throughput(self, shape: object, settings: InferenceSettings, usable_share: float) -> Throughput:
        """What `serve_gpus` serve with a copy of `shape` (an architecture, or a grid of them).

        Weights and caches may take `usable_share` of a device's memory.
        """
        assert self.serve_gpus is not None
        usable = self.serve_gpus.device.memory_bytes * usable_share
        return serving_throughput(shape, self.serve_gpus, self.load, settings, usable_bytes=usable)

    def gpu_hours(self, seconds_per_token: Size) -> Size:
        """Device-hours of `served` tokens, at a device time of each [s]."""
        return self.served * seconds_per_token / 3600


NAMES = tuple(field.name for field in dataclasses.fields(Demand))
"""The conditions of a plan that say what it serves."""
