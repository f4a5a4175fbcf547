"""What a model's code knows and its `config.json` does not say, by `model_type`: the rows of `data/hf_types.json`.

It is no list of what can be read: any other model type is read by its keys alone, and what is taken for granted is
said. Rows were compared with the params of the real classes of transformers 5.23 on the meta device.

Where a row's value is text that begins with "=", it is a formula over the file's keys (`Keys.formula`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

EVERYTHING = ("routed_experts", "shared_experts", "router", "attention", "dense_ffn", "norms")
"""The groups of params inside the blocks; see `moeplan.architecture.counting.GROUPS`."""


@dataclass(frozen=True)
class Gap:
    """Something a model has that is not counted."""

    what: str
    """What it is, as part of a sentence."""
    groups: tuple[str, ...]
    """The groups whose counts it leaves unknown; none for parts outside the language model."""


@dataclass(frozen=True)
class Part:
    """Params of every model of a type that no field of an `Architecture` speaks of."""

    where: str
    """How often it is there: once in the "model", in each "layer", "moe_layer" or "dense_layer", or in each layer of
    one kind ("kind:hybrid")."""
    group: str
    """The group that it is counted in."""
    params: Mapping[str, int]
    """Its params: formulas over keys, each with how often it counts; "" is 1."""
    when: str = ""
    """The key that must be there and not be off."""


@dataclass(frozen=True)
class TypeFacts:
    """What is true of every model of one type."""

    reason: str
    """Why, in a few words: the class or the paper that has it so."""
    note: str = ""
    """What a reader of such a file is told."""
    fields: Mapping[str, object] = field(default_factory=dict)
    """Fields of `Architecture` that no key states."""
    blocks: Mapping[str, object] = field(default_factory=dict)
    """Fields of `Blocks`."""
    attention_kind: str = ""
    """The kind of attention over tokens, where its keys look like another's."""
    attention: Mapping[str, object] = field(default_factory=dict)
    """Fields of the kind of attention."""
    by_kind: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Fields of attention in the layers of one kind, by the name that files have for it."""
    attention_bias: str = "all"
    """What the key attention_bias switches on: "qkv", "all" (output map too) or "none"."""
    ties: bool = True
    """Whether the class ties its embeddings where the file says so."""
    one_shared: bool = False
    """Whether there is one shared expert of the stated width, whatever number of them is stated."""
    fixed_shared: bool = False
    """Whether there is one shared expert as wide as a routed one, whatever is stated."""
    qk_norm: str = "head"
    """What a key such as use_qk_norm switches on: "head", "full", "none" (a norm without weights), "other"."""
    gated: bool | None = False
    """Whether feed-forward blocks are gated whatever the activation is called; None where they are not gated."""
    expert_width: int = 0
    """The width of an expert, where no key states it; 0 where one does."""
    dense_beside: bool = False
    """Whether a dense block as wide as the dense layers runs beside the experts."""
    paired: bool = False
    """Whether each stated layer is two blocks, the first with the experts."""
    shares_last: bool = False
    """Whether the last num_kv_shared_layers layers take keys and values from a layer before."""
    rope_into_nope: bool = False
    """Whether layers that no_rope_layers names with 0 give the width of the rotary key to the other part of keys."""
    ngrams: bool = False
    """Whether the layers of ple_layer_ids look up n-grams of tokens."""
    post_norms: str = ""
    """The key that switches on a norm behind each sub-block, beside the one before it; "" for none."""
    extra: tuple[Part, ...] = ()
    """Params that no other field speaks of."""
    no_params: tuple[str, ...] = ()
    """Patterns of keys that look like sizes and say nothing about params."""
    gaps: tuple[Gap, ...] = ()
    """What models of this type have that `Architecture` cannot express."""


def _facts(row: dict[str, Any]) -> TypeFacts:
    known = {f.name for f in dataclasses.fields(TypeFacts)}
    assert set(row) <= known, f"hf_types.json has the unknown field {min(set(row) - known)}"
    return TypeFacts(
        **{
            **row,
            "extra": tuple(Part(**part) for part in row.get("extra", ())),
            "no_params": tuple(row.get("no_params", ())),
            "gaps": tuple(Gap(gap["what"], tuple(gap.get("groups", EVERYTHING))) for gap in row.get("gaps", ())),
        }
    )


@functools.cache
def facts_by_type() -> dict[str, TypeFacts]:
    """Facts by model_type."""
    rows = json.loads((files("moeplan") / "data" / "hf_types.json").read_text(encoding="utf-8"))
    return {name: _facts(row) for row in rows for name in row.pop("types")}
