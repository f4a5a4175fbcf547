"""What a trained model's weights go with and no count of params shows: positions, norms, activation.

Training on from a model's weights (`moeplan upcycle`) needs all of it as it was; a run from scratch chooses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moeplan.errors import UsageError

_BASE, _EPSILON = 10_000.0, 1e-6
"""What transformers' classes of dense models with rotary positions and RMSNorm (Llama, Mistral, Qwen2, Qwen3) take for
an absent rope_theta and an absent rms_norm_eps."""


@dataclass(frozen=True)
class TrainedSettings:
    """The settings of a trained model that its weights go with."""

    rope: Mapping[str, Any]
    """Rotary positions, as Hugging Face's `rope_parameters`: rope_type, rope_theta and what the type needs."""
    norm_epsilon: float
    """Added to the mean square in norms."""
    context: int
    """Longest sequence that it was made for [tokens]."""
    activation: str = "silu"
    """Activation of its feed-forward blocks, by Hugging Face's name."""
    notes: tuple[str, ...] = ()
    """What its file leaves open and how it was read, in sentences."""


def trained_settings(config: Mapping[str, Any]) -> TrainedSettings:
    """Those of a language model's `config.json`; raises `UsageError` for values that cannot be.

    Both spellings are read: rope_parameters (transformers 5), and rope_theta beside rope_scaling (before).
    """
    notes = []

    def number(name: str, default: float) -> float:
        if config.get(name) is None:
            notes.append(f"{name} is absent: taken as {default:g}")
            return default
        return _positive(name, config[name])

    stated = config.get("rope_parameters")
    older = config.get("rope_scaling")
    for name, value in (("rope_parameters", stated), ("rope_scaling", older)):
        if value is not None and not isinstance(value, Mapping):
            raise UsageError(f"{name} is {value!r:.40}, must be an object")
    rope = dict(stated or older or {})
    rope["rope_type"] = rope.get("rope_type") or rope.pop("type", None) or "default"
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise UsageError("rope_parameters differ from layer to layer, which an upcycled model would not keep")
    if rope.get("rope_theta") is None:
        rope["rope_theta"] = number("rope_theta", _BASE)
    if config.get("partial_rotary_factor") is not None:
        rope.setdefault("partial_rotary_factor", config["partial_rotary_factor"])
    for name in ("rope_theta", "factor", "partial_rotary_factor"):
        if name in rope:
            rope[name] = _positive(name, rope[name])
    epsilon = number("rms_norm_eps", _EPSILON)
    context = int(number("max_position_embeddings", 2048))
    activation = config.get("hidden_act") or "silu"
    for name, value in (("hidden_act", activation), ("rope_type", rope["rope_type"])):
        if not isinstance(value, str) or not value.isidentifier():
            raise UsageError(f"{name} is {value!r:.40}, must be a word")
    return TrainedSettings(rope, epsilon, context, activation, tuple(notes))


def _positive(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        raise UsageError(f"{name} is {value!r:.40}, must be a number above 0")
    return float(value)
