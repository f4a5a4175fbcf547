"""Attention of a `config.json`: the fields of an `Architecture` that speak of it, and the attention of every block."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from moeplan.architecture.attention import KINDS, Attention
from moeplan.architecture.blocks import AttentionRun
from moeplan.architecture.hf.keys import ALIASES, Keys
from moeplan.architecture.hf.mixers import WINDOWED, attention_of_kind, indexed
from moeplan.architecture.hf.types import Gap, TypeFacts
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError

_LATENT = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_OF_LAYER = {
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "sliding_window": "window",
    **{name: name for name in ("head_dim", *_LATENT)},
}
"""Keys that per_layer_config may state anew, and the fields of a kind of attention that they are."""


def attention_fields(keys: Keys, facts: TypeFacts, gaps: list[Gap], assumptions: list[str]) -> dict[str, Any]:
    """Kind, heads, biases and query-key norms of attention, as fields of `Architecture`."""
    heads = keys.number(*ALIASES["num_heads"])
    kv_heads = keys.size(*ALIASES["num_kv_heads"])
    bias = keys.flag("attention_bias")
    latent = {name: keys.number(name) or 0 for name in _LATENT}
    if keys.flag("use_mla") is False or facts.attention_kind:
        latent = dict.fromkeys(_LATENT, 0)
    if keys.get("kv_lora_rank") == 0 and any(latent.values()):
        other = next(name for name, size in latent.items() if size)
        raise UsageError(f"kv_lora_rank is 0, must be at least 1 beside {other} {latent[other]}")
    # transformers' head_dim of a latent attention without a rotary key is 0
    bare = bool(latent["kv_lora_rank"]) and not latent["qk_rope_head_dim"]
    head_dim = (keys.number if bare else keys.size)(*ALIASES["head_dim"])
    norm = keys.flag("use_qk_norm", "qk_norm", "qk_layernorm", "use_qk_layernorm")
    fields: dict[str, Any] = {"num_heads": heads}
    if latent["kv_lora_rank"]:
        for name in ("qk_nope_head_dim", "v_head_dim"):
            if not latent[name]:
                raise UsageError(f"{name} is {keys.get(name) or 0}, must be at least 1 beside kv_lora_rank")
        wide, parts = keys.stated().number("qk_head_dim"), latent["qk_nope_head_dim"] + latent["qk_rope_head_dim"]
        if wide not in (None, parts):
            raise UsageError(
                f"qk_head_dim {wide} and qk_nope_head_dim with qk_rope_head_dim {parts} contradict each other"
            )
        if bias and not facts.reason:
            gaps.append(Gap("biases of latent attention (attention_bias)", ("attention",)))
        if norm and "qk_norm" not in facts.fields:
            assumptions.append("Latent attention norms its latents; no other query-key norm is counted.")
        return {**fields, "attention": "mla", **latent}
    if latent["q_lora_rank"]:
        gaps.append(Gap(f"queries through a latent (q_lora_rank {latent['q_lora_rank']}) alone", ("attention",)))
    d_model = keys.number(*ALIASES["d_model"]) or 0
    if heads and kv_heads and heads % kv_heads:
        name, own = next(iter(keys.whole(*ALIASES["num_kv_heads"]))), next(iter(keys.whole(*ALIASES["num_heads"])))
        raise UsageError(f"{name} {kv_heads} must divide {own} {heads}")
    if heads and not head_dim and heads > d_model:
        name, own = next(iter(keys.whole(*ALIASES["num_heads"]))), next(iter(keys.whole(*ALIASES["d_model"])))
        raise UsageError(f"{name} {heads} is above {own} {d_model}, and head_dim is absent")
    # transformers divides whole numbers where head_dim is absent
    fields |= {"num_kv_heads": kv_heads or 0, "head_dim": head_dim or d_model // (heads or 1)}
    return fields | _biases(keys, facts, bias, assumptions) | _norms(facts, norm, gaps, assumptions)


def _biases(keys: Keys, facts: TypeFacts, bias: bool | None, assumptions: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    qkv = keys.flag("qkv_bias", "use_qkv_bias", "add_qkv_bias", "attention_qkv_bias")
    output = keys.flag("attention_out_bias", "attention_output_bias", "o_bias")
    if facts.attention_bias == "none":
        bias = None
    if bias is not None or qkv is not None:
        fields["qkv_bias"] = bool(bias or qkv)
    if bias is not None or output is not None:
        fields["output_bias"] = bool(output or (bias and facts.attention_bias == "all" and output is None))
    if bias and not facts.reason:
        assumptions.append("attention_bias is taken to be on the query, key, value and output maps.")
    return fields


def _norms(facts: TypeFacts, norm: bool | None, gaps: list[Gap], assumptions: list[str]) -> dict[str, Any]:
    if norm is False:
        return {"qk_norm": "none"}
    if not norm:
        return {}
    if facts.qk_norm == "other":
        gaps.append(Gap("query-key norms of another shape", ("attention",)))
        return {}
    if not facts.reason:
        assumptions.append("The query-key norm is taken to have one weight for each feature of a head.")
    return {"qk_norm": facts.qk_norm}


def attention_of_blocks(
    keys: Keys, facts: TypeFacts, base: Architecture, kinds: list[str] | None, gaps: list[Gap], assumptions: list[str]
) -> tuple[AttentionRun, ...]:
    """The attention of every block, where not all have that of `base`; a gap for blocks whose sizes no key says."""
    plain = _plain(keys, facts, base, gaps)
    layers = kinds or ["full_attention"] * base.num_layers
    of_kind = {kind: _of_kind(kind, keys, facts, plain) for kind in dict.fromkeys(layers)}
    changes = _changes_by_layer(keys, facts, len(layers), gaps)
    found: dict[Attention, list[int]] = {}
    unknown: dict[str, int] = {}
    for i, kind in enumerate(layers):
        attention = of_kind[kind]
        if attention is None:
            unknown[kind] = unknown.get(kind, 0) + 1
            continue
        if attention.kind == plain.kind:
            attention = _changed(attention, changes[i])
        found.setdefault(attention, []).append(i)
    for kind, number in unknown.items():
        gaps.append(Gap(f"{number} of {base.num_layers} layers of kind {kind}", ("attention",)))
    if unknown or list(found) == [base.uniform_attention]:
        return ()
    windows = sum(kind in WINDOWED for kind in layers)
    if windows and any(getattr(attention, "window", 0) for attention in found):
        assumptions.append(
            f"{windows} of {base.num_layers} layers see a window, which bounds their scores and their cache; a runtime "
            "that keeps their cache at full length needs more."
        )
    return tuple(AttentionRun(attention, tuple(where)) for attention, where in found.items())


def _plain(keys: Keys, facts: TypeFacts, base: Architecture, gaps: list[Gap]) -> Attention:
    """Attention over all tokens, of the kind that its type has."""
    plain = base.uniform_attention
    more: dict[str, Any] = keys.values(facts.attention)
    for name in (name for name in facts.attention if name not in more and not facts.attention_kind):
        gaps.append(Gap(f"attention whose {name} no key says ({str(facts.attention[name])[1:]})", ("attention",)))
    if more.get("gate") == "head" and keys.get("gating") not in (None, True, "per-head"):
        more["gate"] = "full"
    if facts.attention_kind:
        kind = KINDS[facts.attention_kind]
        names = [f for f in dataclasses.fields(kind) if f.init]
        values = {f.name: getattr(plain, f.name) for f in names if hasattr(plain, f.name)} | more
        lacking = [f.name for f in names if f.name not in values and f.default is dataclasses.MISSING]
        if lacking:
            gaps.append(Gap(f"{kind.label}, of which no key says {', '.join(lacking)}", ("attention",)))
            return plain
        return kind(**values)
    if plain.kind == "gqa" and (width := keys.number("v_head_dim")):
        more["v_head_dim"] = width
    if plain.kind == "mla" and facts.reason and facts.attention_bias != "none" and keys.flag("attention_bias"):
        more["bias"] = True
    if keys.flag("attn_output_gate"):
        more |= {"gate": "full", "gate_in_query": True}
    return indexed(dataclasses.replace(plain, **more), keys)


def _of_kind(kind: str, keys: Keys, facts: TypeFacts, plain: Attention) -> Attention | None:
    """The attention of layers of one kind: the class's own sizes for them, then what the file states."""
    rule = {} if keys.get("per_layer_config") is not None else keys.defaults.get("per_layer_config", {})
    if kind in rule:
        keys.taken["per_layer_config"] = rule
        plain = _changed(plain, {_OF_LAYER[key]: value for key, value in rule[kind].items() if key in _OF_LAYER})
    attention = attention_of_kind(kind, keys, plain)
    if attention is None or attention.kind != plain.kind:
        return attention
    return _changed(attention, keys.values(facts.by_kind.get(kind, {})))


def _changed(attention: Attention, values: Mapping[str, Any]) -> Attention:
    """The same with other sizes, as far as its kind has them."""
    own = {f.name for f in dataclasses.fields(attention) if f.init}
    values = dict(values)
    if values.pop("no_indexer", False) and getattr(attention, "index_heads", 0):
        values |= {"index_heads": 0, "index_head_dim": 0}
    if values.pop("no_rope", False):
        both = attention.qk_nope_head_dim + attention.qk_rope_head_dim  # type: ignore[attr-defined]
        values |= {"qk_nope_head_dim": both, "qk_rope_head_dim": 0}
    return dataclasses.replace(attention, **{name: value for name, value in values.items() if name in own})


def _changes_by_layer(keys: Keys, facts: TypeFacts, number: int, gaps: list[Gap]) -> list[dict[str, Any]]:
    """What each of `number` layers states of its own, by any key that does so."""
    found: list[dict[str, Any]] = [{} for _ in range(number)]
    for i, stated in keys.by_layer("per_layer_config", number).items():
        unknown = sorted(set(stated) - set(_OF_LAYER) - {"intermediate_size"})
        if unknown:
            gaps.append(Gap(f"layers of their own {', '.join(unknown)} (per_layer_config)", ("attention", "dense_ffn")))
        found[i] |= {_OF_LAYER[key]: value for key, value in stated.items() if key in _OF_LAYER}
    for i, block in enumerate(keys.objects("block_configs", "attention", number)):
        if (group := Keys(block).size("n_heads_in_group")) is not None:
            found[i]["num_kv_heads"] = (keys.number(*ALIASES["num_heads"]) or 0) // group
    heads = keys.entries("num_attention_heads_per_layer")
    for i in range(number if heads is not None else 0):
        found[i] |= _heads_of_layer(heads or [], i, number)
    for i, kind in enumerate(keys.listed("indexer_types", number) or ()):
        if kind == "shared":
            found[i]["no_indexer"] = True
    if facts.rope_into_nope:
        for i, rotary in enumerate(keys.listed("no_rope_layers", number) or ()):
            if not rotary:
                found[i]["no_rope"] = True
    for i, source in enumerate(keys.stated().listed("kv_source_layers", number) or ()):
        if source != i:
            found[i]["shares_kv"] = True
    if facts.shares_last and (last := keys.number("num_kv_shared_layers")):
        for change in found[-last:]:
            change["shares_kv"] = True
    return found


def _heads_of_layer(heads: list[Any], layer: int, num_layers: int) -> dict[str, Any]:
    number = heads[layer] if len(heads) == num_layers else 0
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(f"num_attention_heads_per_layer must hold a whole number for each of {num_layers} layers")
    return {"num_heads": number}
