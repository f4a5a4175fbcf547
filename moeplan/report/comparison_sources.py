"""Where the numbers of a comparison come from: one source for each place of its JSON."""

from __future__ import annotations

from moeplan.report.sources import ASKED, pooled_source
from moeplan.report.text import Source
from moeplan.report.view import SourceOf, View
from moeplan.studies.comparison.result import Comparison

WORK = "compute of the law's best dense model that is as good / compute of the first model, both as the law counts"
"""The definition of a ratio of dense compute."""
CAUSAL = "6 * (active params without input embedding) + causal attention, forward + backward"
"""The definition of a model's FLOPs."""
COUNTED = Source("Counted from the exact integer shape, or priced from it at stated peaks and shares of them.")
_SHAPE = "counted from the integer shape"
_MODELS = {
    "total_params": (_SHAPE, "embeddings included"),
    "active_params": (_SHAPE, "embeddings included"),
    "tokens": ("what the compute pays for, or what was given", ""),
    "tokens_per_param": ("tokens / active params", ""),
    "epochs": ("tokens / unique tokens available", ""),
    "train_flops": ("FLOPs per token * tokens", CAUSAL),
    "gpu_hours": (
        "tokens / tokens a second under its fastest layout, by the calibrated model; with --mfu, train FLOPs / (dense "
        "bf16 peak * MFU)",
        "",
    ),
    "mfu": ("share of the dense bf16 peak: predicted for its fastest layout, unless given", ""),
    "days": ("device-hours over the number of devices", ""),
    "money": ("GPU time times its price", ""),
    "state_bytes": ("weights, gradients and optimizer state, one copy", ""),
    "training_bytes_per_gpu": ("the layout that needs least, activations included", ""),
    "serving_bytes": ("weights and full KV cache, exactly", ""),
    "kv_bytes_per_token": ("keys and values, or latents", ""),
    "long_sequences": ("one sequence served alone; rows of all layers to experts and back, each expert its own", ""),
    "num_devices": ("those of the memory limit, else as many as the largest model needs", ""),
    "decode": ("batch / step time, expected by a fitted model, and at most by bytes and FLOPs", ""),
}
"""How each number of a model came about, and what it counts."""
_SAVINGS = {
    "saving": "1 - C_moe/C at equal loss",
    "times": "C/C_moe at equal loss",
    "leverage": "C_dense/C: the best MoE at C against the best dense model",
}


def seen(found: Comparison) -> View[Comparison]:
    """A comparison whose every number knows its place and source."""
    return View(found, comparison_source(found))


def comparison_source(found: Comparison) -> SourceOf:
    """From the place of a number in a comparison's JSON to where the number comes from."""
    measured = Source("Measured points of li2025's tables, and straight lines between them.", "li2025, zhao2025")
    ratios = Source("Ratios of what stands side by side, the first model over the other.")

    def source(parts: list[str]) -> Source | None:
        match parts:
            case ["setting", *_]:
                return ASKED
            case ["models", _, field, *_]:
                return Source(_MODELS[field][0], convention=_MODELS[field][1]) if field in _MODELS else COUNTED
            case ["laws", place, "answers", model, field]:
                return _answer(found, int(place), int(model), field)
            case ["pooled", *rest] if found.pooled:
                return pooled_source(found.pooled, rest)
            case ["versus", _, "quality" | "own_compute", law]:
                return Source(next(column.basis for column in found.laws if column.law == law), law)
            case ["versus", *_]:
                return ratios
            case ["equal_loss", place, _]:
                twin = found.equal_loss[int(place)]
                outside = "the MoE or that model is outside the measured range" if twin.extrapolated else "inside"
                return Source("the law's own best dense model of equal loss", twin.law, "as the law counts", outside)
            case ["savings", place, key]:
                saving = found.savings[int(place)]
                domain = f"outside the measured range of {', '.join(saving.outside)}" if saving.outside else "inside"
                return Source(_SAVINGS[key], saving.law, "continuous sizes, the law's own FLOPs", domain)
            case ["resources", *_]:
                return measured
        return None

    return source


def _answer(found: Comparison, place: int, model: int, field: str) -> Source:
    column = found.laws[place]
    outside = ", ".join(o.variable for o in column.answers[model].outside)
    domain = f"outside the measured range of {outside}" if outside else "inside the measured range"
    if field in ("ratio_low", "ratio_high") and not column.draws:
        says = f"The 90 % interval of {column.law}'s leverage, times the share that the split keeps."
        return Source(says, column.law, WORK, domain)
    return Source(column.basis, column.law, WORK if field.startswith("ratio") else "", domain)
