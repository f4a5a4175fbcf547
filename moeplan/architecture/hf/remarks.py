"""What a reader of a `config.json` is told: keys that are absent, keys that nobody knows, activations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from moeplan.architecture.hf.keys import (
    ALIASES,
    BIASES,
    GATED,
    OTHER_BLOCKS,
    PARTS,
    SIZES,
    Keys,
    class_defaults,
    groups_of,
    reads_text_config,
)
from moeplan.architecture.hf.types import EVERYTHING, Gap, TypeFacts
from moeplan.errors import UsageError


def unknown_type(model_type: str) -> str:
    """What is taken for granted of a type that has no row."""
    name = f"model_type {model_type!r} is not in moeplan's table" if model_type else "the file names no model_type"
    return (
        f"{name[:1].upper()}{name[1:]}: taken to have two RMS norms a block, gated feed-forward blocks, and no "
        "biases or query-key norms but those that keys name."
    )


def taken(keys: Keys, fields: Mapping[str, Any]) -> list[str]:
    """Sentences about absent keys that were taken from the class or from another key."""
    latent = fields.get("attention") == "mla"
    said = {}
    for key, value in keys.taken.items():
        if key == "tie_word_embeddings" or (latent and key in ("num_key_value_heads", "head_dim")):
            continue
        rule = keys.defaults.get(key)
        said[key] = f"{rule[1:]}, {value}" if isinstance(rule, str) else json.dumps(value)
    if not latent and not keys.present(*ALIASES["num_kv_heads"]) and not keys.present("block_configs"):
        said["num_key_value_heads"] = f"num_attention_heads, {fields['num_heads']}"
    if not latent and not keys.present(*ALIASES["head_dim"]):
        said["head_dim"] = f"hidden_size/num_attention_heads, {fields['head_dim']}"
    return [f"{key} is absent: taken as {words}." for key, words in said.items()]


def beside_text_config(keys: Keys, model_type: str) -> list[Gap]:
    """A gap where a file without text_config states other sizes than its class, which reads no others, would take."""
    if not reads_text_config(model_type):
        return []
    row = class_defaults(model_type)
    other = {
        key: (value, row[key])
        for key, value in keys.data.items()
        if SIZES.fullmatch(key) and isinstance(row.get(key), int) and isinstance(value, int) and value != row[key]
    }
    if not other:
        return []
    said = ", ".join(f"{key} {value} (its class: {default})" for key, (value, default) in other.items())
    spoken_of = dict.fromkeys(group for key in other for group in groups_of(key) or EVERYTHING)
    return [Gap(f"what text_config would say, which alone the class of {model_type} reads: {said}", tuple(spoken_of))]


def activation(keys: Keys, facts: TypeFacts) -> list[Gap]:
    """A gap where the activation does not say that feed-forward blocks are gated."""
    names = ("hidden_act", "hidden_activation", "activation_function", "activation", "act_fn", "mlp_hidden_act")
    for name, value in keys.present(*names, "ffn_config.ffn_act_fn").items():
        word = value.get("name", "") if isinstance(value, Mapping) else value
        if not isinstance(word, str):
            raise UsageError(f"{name} is {word!r:.40}, must be text")
        if str(word).lower() not in GATED and facts.gated is False:
            groups = ("dense_ffn", "routed_experts", "shared_experts")
            return [Gap(f"feed-forward blocks with {name} {word!r}, which may not be gated", groups)]
    return []


def unread(keys: Keys, facts: TypeFacts, assumptions: list[str], *, known: bool, typed: bool) -> list[Gap]:
    """Gaps of keys that nobody read: those of known other blocks together, the others that speak of sizes by name.

    Of other keys it is said that they are taken to have no weights. `known`: every block's kind of attention was read,
    so that keys that speak of such kinds, but not of sizes, say no more. `typed`: the model type is in the table, which
    then says what its parts are; of other types a part that is switched on may have weights.
    """
    keys.check_switches(*BIASES)
    harmless = re.compile("|".join(facts.no_params) or "(?!)")
    left = {key: value for key, value in keys.unread().items() if not harmless.fullmatch(key)}
    gaps = []
    for pattern, what, groups in OTHER_BLOCKS:
        named = [key for key in left if pattern.fullmatch(key)]
        if known and groups[0] == "attention":
            left = {key: value for key, value in left.items() if key not in named or SIZES.fullmatch(key)}
            named = [key for key in named if key in left]
        if named:
            gaps.append(Gap(f"{what} ({', '.join(named)})", groups))
            left = {key: value for key, value in left.items() if key not in named}
    sizes = [
        key
        for key, value in left.items()
        if SIZES.fullmatch(key) or (not typed and value is True and PARTS.fullmatch(key))
    ]
    if sizes:
        named = [f"{key} {_text(left[key])}" for key in sizes]
        spoken_of = dict.fromkeys(group for key in sizes for group in groups_of(key) or EVERYTHING)
        what = f"whatever these keys stand for, which moeplan does not know: {', '.join(named)}"
        gaps.append(Gap(what, tuple(spoken_of)))
    others = [f"{key} {_text(value)}" for key, value in left.items() if key not in sizes]
    if others:
        assumptions.append(f"These keys are not known to moeplan and taken to have no weights: {', '.join(others)}.")
    return gaps


def _text(value: Any) -> str:
    return "[...]" if isinstance(value, list) else "{...}" if isinstance(value, Mapping) else json.dumps(value)
