"""Which layers of a `config.json` have experts, by every spelling there is."""

from __future__ import annotations

from moeplan.architecture.hf.keys import Keys
from moeplan.errors import UsageError


def moe_layers(keys: Keys, num_layers: int) -> list[bool]:
    """True for each layer with experts.

    Spellings that say "all" give way to others; two that differ raise `UsageError`.
    """
    stated = _patterns(keys.stated(), num_layers)
    first = keys.stated().present("first_k_dense_replace", "num_dense_layers", "dense_mlp_idx")
    said = list(stated)
    half = (said == ["first_k_dense_replace"] and not first) or (  # moe_layer_freq alone says no start,
        said == ["mlp_only_layers"] and keys.stated().entries("mlp_only_layers") is None  # decoder_sparse_step no list
    )
    if not stated or half:
        return _agreed(_patterns(keys, num_layers), num_layers)
    return _agreed(stated, num_layers)


def _patterns(keys: Keys, num_layers: int) -> dict[str, list[bool]]:
    """What each spelling says, of those that are there."""
    found: dict[str, list[bool]] = {}
    layers = range(num_layers)
    first = keys.number("first_k_dense_replace", "num_dense_layers", "dense_mlp_idx")
    frequency = keys.get("moe_layer_freq")
    if isinstance(frequency, list):
        if not all(moe in (0, 1) for moe in frequency):
            raise UsageError("moe_layer_freq must hold 0 and 1 alone where it is a list")
        found["moe_layer_freq"] = _by_layer("moe_layer_freq", [bool(moe) for moe in frequency], num_layers)
        frequency = None
    if first is not None or frequency is not None:
        if first is not None and first > num_layers:
            raise UsageError(f"first_k_dense_replace {first} is above num_hidden_layers {num_layers}")
        step = _step(keys, "moe_layer_freq")
        found["first_k_dense_replace"] = [i >= (first or 0) and i % step == 0 for i in layers]
    dense, step = keys.entries("mlp_only_layers"), _step(keys, "decoder_sparse_step")
    if dense is not None or keys.present("decoder_sparse_step"):
        _check_layers("mlp_only_layers", dense or [], num_layers)
        found["mlp_only_layers"] = [i not in (dense or ()) and (i + 1) % step == 0 for i in layers]
    kinds = keys.entries("mlp_layer_types")
    if kinds is not None:
        other = [kind for kind in kinds if kind not in ("dense", "sparse", "moe", "hash_moe")]
        if other:
            raise UsageError(f"mlp_layer_types has the unknown kind {other[0]!r}; known are dense, sparse and moe")
        found["mlp_layer_types"] = _by_layer("mlp_layer_types", [kind != "dense" for kind in kinds], num_layers)
    chosen = keys.entries("moe_layers")
    if chosen is not None:
        _check_layers("moe_layers", chosen, num_layers)
        found["moe_layers"] = [i in chosen for i in layers]
    step = _step(keys, "interleave_moe_layer_step")
    if keys.present("interleave_moe_layer_step"):
        found["interleave_moe_layer_step"] = [(i + 1) % step == 0 for i in layers]
    start, end = keys.number("moe_layer_start_index"), keys.get("moe_layer_end_index")
    if start is not None:
        start, step = keys.number("moe_layer_start_index") or 0, _step(keys, "moe_layer_interval")
        last = num_layers - 1 if end in (None, -1) else keys.number("moe_layer_end_index") or 0
        if start > last:
            raise UsageError(f"moe_layer_start_index {start} is above the last layer with experts, {last}")
        found["moe_layer_start_index"] = [start <= i <= last and (i + 1) % step == 0 for i in layers]
    if keys.present("expert_layer_period"):
        step, offset = _step(keys, "expert_layer_period"), keys.number("expert_layer_offset") or 0
        if offset >= step:
            raise UsageError(f"expert_layer_offset {offset} must be below expert_layer_period {step}")
        found["expert_layer_period"] = [i % step == offset for i in layers]
    return found


def _agreed(found: dict[str, list[bool]], num_layers: int) -> list[bool]:
    telling = {name: pattern for name, pattern in found.items() if not all(pattern)}
    patterns = list(telling.values())
    if any(pattern != patterns[0] for pattern in patterns):
        first, second = next((a, b) for a in telling for b in telling if telling[a] != telling[b])
        raise UsageError(f"{first} and {second} contradict each other about which layers have experts")
    return patterns[0] if patterns else [True] * num_layers


def _step(keys: Keys, name: str) -> int:
    per_layer = name == "moe_layer_freq" and isinstance(keys.get(name), list)
    step = None if per_layer else keys.number(name)
    if step == 0:
        raise UsageError(f"{name} is 0, must be at least 1")
    return step or 1


def _check_layers(name: str, layers: list[object], num_layers: int) -> None:
    for i in layers:
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < num_layers:
            raise UsageError(f"{name} names layers outside 0 to {num_layers - 1}: {i!r:.40}")


def _by_layer(name: str, pattern: list[bool], num_layers: int) -> list[bool]:
    if len(pattern) != num_layers:
        raise UsageError(f"{name} has {len(pattern)} entries, num_hidden_layers is {num_layers}")
    return pattern
