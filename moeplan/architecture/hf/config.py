"""A Hugging Face `config.json` as an `Architecture`: read by structure and aliases, offline, whoever wrote it.

What the file does not say comes from `moeplan.architecture.hf.types` or is taken for granted, and is said
(`assumptions`). What the model has beyond attention and gated feed-forward blocks (linear attention, state-space
layers, unknown keys with sizes) is listed (`gaps`): such a model has no total.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeplan.architecture import counting
from moeplan.architecture.attention import Attention
from moeplan.architecture.blocks import AttentionRun, Blocks
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
)
from moeplan.architecture.hf.layers import moe_layers
from moeplan.architecture.hf.mixers import BARE, WINDOWED, attention_of_kind, indexed, kinds_of_layers
from moeplan.architecture.hf.types import EVERYTHING, TYPES, Gap, TypeFacts
from moeplan.architecture.hybrid import hybrid
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from moeplan.files import read_json

LARGEST_FILE = 5_000_000
"""Bytes beyond which a file is no model config."""
MOST_LAYERS = 10_000
"""Layers beyond which a config is a mistake."""
NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where multimodal configs keep their language model."""
TOWERS = ("vision_config", "audio_config", "audio_encoder_config", "vision_tower", "encoder_config", "vq_config")
"""Where they keep the rest, which is not counted."""
STATED = ("d_model", "num_layers", "num_heads", "vocab_size", "num_experts", "num_active_experts", "d_ff")
"""What a file must state itself, unless it is nested: nested configs are written as differences from their class."""


@dataclass(frozen=True)
class ModelConfig:
    """What a config says of a model."""

    model_type: str
    """The model_type that it names; "" if none."""
    architecture: Architecture
    """The model's shape, as far as an `Architecture` can express it."""
    gaps: tuple[Gap, ...]
    """What is not counted."""
    assumptions: tuple[str, ...]
    """What the file leaves open and how it is read, in sentences."""

    @property
    def unknown_groups(self) -> tuple[str, ...]:
        """The groups of params whose counts are not known; the total is known if there are none."""
        unknown = {group for gap in self.gaps for group in gap.groups}
        return tuple(group for group in counting.GROUPS if group in unknown)


def load_json(path: str | Path) -> Any:
    """The JSON of a file, or of `config.json` in a folder; raises `UsageError` naming the path."""
    path = Path(path)
    try:
        if path.is_dir():
            if not (path / "config.json").exists():
                raise UsageError(f"{path}: the folder has no config.json")
            path = path / "config.json"
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    return read_json(path, largest=LARGEST_FILE, what="model config", instead="; give a config.json or a plan file")


def read_config(data: Any, where: str = "the config") -> ModelConfig:
    """Read the content of a `config.json`.

    Raises `UsageError`, with `where`, for anything that is no model config: missing, contradictory or impossible keys.
    """
    try:
        if not isinstance(data, Mapping):
            raise UsageError("is JSON but no model config: it holds no object")
        return _read(data)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _language_model(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Gap]]:
    """The part of a config that describes the language model, and the parts that do not."""
    outside = [Gap(f"the part under {key}", ()) for key in TOWERS if data.get(key)]
    for name in NESTED:
        inner = data.get(name)
        if inner is not None and not isinstance(inner, Mapping):
            raise UsageError(f"{name} is {inner!r:.40}, must be an object")
        if isinstance(inner, Mapping) and (inner.get("model_type") or set(ALIASES["d_model"]) & set(inner)):
            inner, more = _language_model(inner)
            outer = ("tie_word_embeddings", "quantization_config")
            return {**inner, **{key: data[key] for key in outer if key in data}}, [*outside, *more]
    return data, outside


def _read(data: Mapping[str, Any]) -> ModelConfig:
    outer = data
    data, gaps = _language_model(data)
    model_type = Keys(data).text("model_type")
    defaults = dict(class_defaults(model_type))
    if data is outer:
        for name in (alias for quantity in STATED for alias in ALIASES[quantity]):
            defaults.pop(name, None)
    keys = Keys(data, defaults)
    for name in ("model_type", *NESTED, *TOWERS):
        keys.get(name)
    facts = TYPES.get(model_type)
    assumptions = [] if facts else [_unknown_type(model_type)]
    facts = facts or TypeFacts("")
    gaps += facts.gaps
    fields: dict[str, Any] = {**facts.fields, **_sizes(keys)}
    shared = fields.pop("num_shared_experts", 0)
    kinds = kinds_of_layers(keys, fields["num_layers"])
    switched_off = keys.flag("use_moe", "enable_moe_block", "use_moe_block") is False
    experts = {} if switched_off else _experts(keys)
    if facts.one_shared and experts.get("num_shared_experts"):
        experts["num_shared_experts"] = 1
    alone = set(kinds or ()) & set(BARE)
    pattern = [kind == "moe" for kind in kinds or ()] if alone else moe_layers(keys, fields["num_layers"])
    if not any(pattern) or switched_off:  # experts in no layer: a dense model
        experts = {}
    if switched_off:
        for quantity in ("num_experts", "num_active_experts", "d_expert", "num_shared_experts", "shared_width"):
            keys.present(*ALIASES[quantity])
    if experts:
        fields |= {"num_shared_experts": shared, **experts}
    else:
        for name in ("router_bias", "router_correction_bias", "expert_bias", "shared_expert_gate"):
            fields.pop(name, None)
    bare = [i for i, kind in enumerate(kinds or ()) if alone and kind not in BARE]
    fields |= _feed_forward(keys, pattern if experts else [], len(bare))
    if experts and facts.dense_beside:
        fields["d_dense_residual"] = keys.size("intermediate_size") or 0
    if facts.post_norms and keys.flag(facts.post_norms):
        fields["norms_per_block"] = 4
    fields |= _attention(keys, facts, gaps, assumptions)
    tied = keys.flag("tie_word_embeddings")
    if tied is None:
        tied = bool(fields.get("tied_embeddings", False))
        assumptions.append(f"tie_word_embeddings is absent: taken as {str(tied).lower()}.")
    fields["tied_embeddings"] = tied and facts.ties
    fields["num_mtp_layers"] = keys.number(*ALIASES["num_mtp_layers"]) or 0
    _activation(keys, facts, gaps)
    extra = [("output_head", fields["vocab_size"])] if facts.head_bias and keys.flag("lm_head_bias") else []
    for group, (widths, numbers) in facts.moe_extra.items() if experts else ():
        extra.append((group, sum(pattern) * (widths * fields["d_model"] + numbers * fields["num_experts"])))
    blocks = Blocks(
        attentions=_attentions(keys, facts, Architecture(**fields), kinds, gaps, assumptions),
        bare_layers=tuple(bare),
        gated=facts.gated is not None,
        d_latent=(keys.number("moe_latent_size") or 0) if experts else 0,
        extra_params=tuple(extra),
    )
    if keys.flag("is_encoder_decoder"):
        gaps.append(Gap("an encoder beside the decoder", EVERYTHING))
    gaps += _unread(keys, assumptions, known=bool(blocks.attentions), typed=model_type in TYPES)
    assumptions += _taken(keys, fields)
    return ModelConfig(model_type, hybrid(fields, blocks), tuple(dict.fromkeys(gaps)), tuple(assumptions))


def _taken(keys: Keys, fields: Mapping[str, Any]) -> list[str]:
    """Sentences about absent keys that were taken from the class or from another key."""
    latent = fields.get("attention") == "mla"
    said = {}
    for key, value in keys.taken.items():
        if key == "tie_word_embeddings" or (latent and key in ("num_key_value_heads", "head_dim")):
            continue
        rule = keys.defaults.get(key)
        said[key] = f"{rule[1:]}, {value}" if isinstance(rule, str) else json.dumps(value)
    if not latent and not keys.present(*ALIASES["num_kv_heads"]):
        said["num_key_value_heads"] = f"num_attention_heads, {fields['num_heads']}"
    if not latent and not keys.present(*ALIASES["head_dim"]):
        said["head_dim"] = f"hidden_size/num_attention_heads, {fields['head_dim']}"
    return [f"{key} is absent: taken as {words}." for key, words in said.items()]


def _heads_of_layer(heads: list[Any], layer: int, num_layers: int) -> dict[str, Any]:
    number = heads[layer] if len(heads) == num_layers else 0
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(f"num_attention_heads_per_layer must hold a whole number for each of {num_layers} layers")
    return {"num_heads": number}


def _attentions(
    keys: Keys, facts: TypeFacts, base: Architecture, kinds: list[str] | None, gaps: list[Gap], assumptions: list[str]
) -> tuple[AttentionRun, ...]:
    """The attention of every block, where not all have that of `base`; a gap for blocks whose sizes no key says."""
    plain = base.uniform_attention
    more: dict[str, Any] = dict(facts.attention)
    if plain.kind == "gqa" and (width := keys.number("v_head_dim")):
        more["v_head_dim"] = width
    if keys.flag("attn_output_gate"):
        more |= {"gate": "full", "gate_in_query": True}
    plain = indexed(dataclasses.replace(plain, **more), keys)
    layers = kinds or ["full_attention"] * base.num_layers
    heads = keys.entries("num_attention_heads_per_layer")
    found: dict[Attention, list[int]] = {}
    unknown: dict[str, int] = {}
    for i, kind in enumerate(layers):
        own = plain if heads is None else dataclasses.replace(plain, **_heads_of_layer(heads, i, base.num_layers))
        attention = attention_of_kind(kind, keys, own)
        if attention is None:
            unknown[kind] = unknown.get(kind, 0) + 1
        else:
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


def _unknown_type(model_type: str) -> str:
    name = f"model_type {model_type!r} is not in moeplan's table" if model_type else "the file names no model_type"
    return (
        f"{name[:1].upper()}{name[1:]}: taken to have two RMS norms a block, gated feed-forward blocks, and no "
        "biases or query-key norms but those that keys name."
    )


def _sizes(keys: Keys) -> dict[str, int]:
    """Width, depth, heads and vocabulary; raises `UsageError` naming those that are missing."""
    found = {name: keys.size(*ALIASES[name]) for name in ("d_model", "num_layers", "vocab_size", "num_heads")}
    listed = keys.stated().get("layers_block_type")
    if found["num_layers"] is None and isinstance(listed, list):
        found["num_layers"] = len(listed)
    missing = [ALIASES[name][0] for name, value in found.items() if value is None]
    if len(missing) == len(found):
        raise UsageError(f"is JSON but no model config: it has none of {', '.join(missing)}")
    if missing:
        raise UsageError(f"lacks {', '.join(missing)}")
    if (found["num_layers"] or 0) > MOST_LAYERS:
        raise UsageError(f"has {found['num_layers']} layers, which no model has; at most {MOST_LAYERS} are read")
    return {name: value for name, value in found.items() if value is not None}


def _experts(keys: Keys) -> dict[str, int]:
    """Number, top-k and width of experts; empty for a dense model."""
    number, top_k = (keys.whole(*ALIASES[name]) for name in ("num_experts", "num_active_experts"))
    num_experts, num_active = keys.number(*number), keys.number(*top_k)
    if num_experts:
        keys.size(*ALIASES["d_expert"])
    width = (keys if num_experts else keys.stated()).number(*ALIASES["d_expert"])
    if not num_experts:
        if num_active or width:
            widths = keys.stated().whole(*ALIASES["d_expert"])
            name, value = next((n, v) for n, v in {**top_k, **widths}.items() if v)
            lack = f"{next(iter(number))} 0" if number else f"no {ALIASES['num_experts'][1]}"
            raise UsageError(f"has {lack} but {name} {value}: a model with experts needs at least one")
        return {}
    if num_active is None:
        raise UsageError(f"lacks {ALIASES['num_active_experts'][0]}, which {next(iter(number))} {num_experts} needs")
    if not 1 <= num_active <= num_experts:
        raise UsageError(f"{next(iter(top_k))} {num_active} must be 1 to {next(iter(number))} {num_experts}")
    if width is None:
        # a class without a key of its own for it (Mixtral, gpt-oss) has experts as wide as its dense blocks would be
        width = keys.number("intermediate_size") or keys.number("ffn_hidden_size", "ffn_config.ffn_hidden_size")
    if not width:
        raise UsageError(f"lacks {ALIASES['d_expert'][0]}, the width of its experts")
    return {"num_experts": num_experts, "num_active_experts": num_active, "d_expert": width, **_shared(keys, width)}


def _shared(keys: Keys, width: int) -> dict[str, int]:
    """Number and width of shared experts, by a number of routed widths or by a total width (one wide expert)."""
    counts, widths = keys.whole(*ALIASES["num_shared_experts"]), keys.whole(*ALIASES["shared_width"])
    number, total = keys.number(*counts), keys.number(*widths)
    if number is None and total is None:
        return {}
    if not number:
        if number == 0 and total and next(iter(counts)) in keys.data:
            raise UsageError(f"{next(iter(counts))} 0 and {next(iter(widths))} {total} contradict each other")
        return {"num_shared_experts": int(bool(total)), "d_shared_expert": total or 0}
    if total is not None and total != number * width:
        if number == 1 or next(iter(widths)) in OF_ONE:
            return {"num_shared_experts": number, "d_shared_expert": total}
        raise UsageError(
            f"{next(iter(counts))} {number} of width {width} and {next(iter(widths))} {total} contradict each other"
        )
    return {"num_shared_experts": number, "d_shared_expert": width}


OF_ONE = ("moe_shared_expert_intermediate_size", "share_expert_dim")
"""Keys that are the width of one shared expert, where they are not that of all."""


def _feed_forward(keys: Keys, pattern: list[bool], bare: int = 0) -> dict[str, Any]:
    """Which layers have experts (an empty pattern: none), and how wide the others are."""
    narrow = keys.number("intermediate_size")
    wide = keys.number(
        "intermediate_size_mlp", "dense_intermediate_size"
    )  # beside these, intermediate_size is experts'
    width = wide or narrow or keys.number(*ALIASES["d_ff"][1:]) or 0
    fields: dict[str, Any] = {}
    if pattern:
        first = pattern.index(True)
        if all(pattern[first:]):
            fields["num_dense_layers"] = first
        else:
            fields["moe_layer_pattern"] = tuple(pattern)
    if sum(pattern) + bare < len(pattern) or not pattern or bare:
        keys.size("intermediate_size_mlp", "dense_intermediate_size")
        if not width and keys.entries("block_configs"):
            raise UsageError("the widths of its layers differ (block_configs), which no count here has a place for")
        if not width:
            raise UsageError("lacks intermediate_size, the width of its dense layers")
        fields["d_ff"] = width
    return fields


def _attention(keys: Keys, facts: TypeFacts, gaps: list[Gap], assumptions: list[str]) -> dict[str, Any]:
    """Kind, heads, biases and query-key norms of attention."""
    heads = keys.number(*ALIASES["num_heads"])
    kv_heads = keys.size(*ALIASES["num_kv_heads"])
    head_dim = keys.size(*ALIASES["head_dim"])
    bias = keys.flag("attention_bias")
    ranks = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    latent = {name: keys.number(name) or 0 for name in ranks}
    if keys.flag("use_mla") is False:
        latent = dict.fromkeys(ranks, 0)
    if keys.get("kv_lora_rank") == 0 and any(latent.values()):
        other = next(name for name, size in latent.items() if size)
        raise UsageError(f"kv_lora_rank is 0, must be at least 1 beside {other} {latent[other]}")
    norm = keys.flag("use_qk_norm", "qk_norm", "qk_layernorm", "use_qk_layernorm")
    fields: dict[str, Any] = {"num_heads": heads}
    if latent["kv_lora_rank"]:
        for name in ("qk_nope_head_dim", "v_head_dim"):
            if not latent[name]:
                raise UsageError(f"{name} is {keys.get(name) or 0}, must be at least 1 beside kv_lora_rank")
        if bias:
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
    if norm:
        if facts.qk_norm == "other":
            gaps.append(Gap("query-key norms of another shape", ("attention",)))
        else:
            fields["qk_norm"] = facts.qk_norm
            if not facts.reason:
                assumptions.append("The query-key norm is taken to have one weight for each feature of a head.")
    elif norm is False:
        fields["qk_norm"] = "none"
    return fields


def _activation(keys: Keys, facts: TypeFacts, gaps: list[Gap]) -> None:
    """A gap where the activation does not say that feed-forward blocks are gated."""
    names = ("hidden_act", "hidden_activation", "activation_function", "activation", "act_fn", "mlp_hidden_act")
    for name, value in keys.present(*names, "ffn_config.ffn_act_fn").items():
        word = value.get("name", "") if isinstance(value, Mapping) else value
        if not isinstance(word, str):
            raise UsageError(f"{name} is {word!r:.40}, must be text")
        if str(word).lower() not in GATED and facts.gated is False:
            groups = ("dense_ffn", "routed_experts", "shared_experts")
            gaps.append(Gap(f"feed-forward blocks with {name} {word!r}, which may not be gated", groups))
            return


def _unread(keys: Keys, assumptions: list[str], *, known: bool, typed: bool) -> list[Gap]:
    """Gaps of keys that nobody read: those of known other blocks together, the others that speak of sizes by name.

    Of other keys it is said that they are taken to have no weights. `known`: every block's kind of attention was read,
    so that keys that speak of such kinds, but not of sizes, say no more. `typed`: the model type is in the table, which
    then says what its parts are; of other types a part that is switched on may have weights.
    """
    keys.check_switches(*BIASES)
    unread = keys.unread()
    gaps = []
    for pattern, what, groups in OTHER_BLOCKS:
        named = [key for key in unread if pattern.fullmatch(key)]
        if known and groups[0] == "attention":
            unread = {key: value for key, value in unread.items() if key not in named or SIZES.fullmatch(key)}
            named = [key for key in named if key in unread]
        if named:
            gaps.append(Gap(f"{what} ({', '.join(named)})", groups))
            unread = {key: value for key, value in unread.items() if key not in named}
    sizes = [
        key
        for key, value in unread.items()
        if SIZES.fullmatch(key) or (not typed and value is True and PARTS.fullmatch(key))
    ]
    if sizes:
        named = [f"{key} {_text(unread[key])}" for key in sizes]
        spoken_of = dict.fromkeys(group for key in sizes for group in groups_of(key) or EVERYTHING)
        what = f"whatever these keys stand for, which moeplan does not know: {', '.join(named)}"
        gaps.append(Gap(what, tuple(spoken_of)))
    others = [f"{key} {_text(value)}" for key, value in unread.items() if key not in sizes]
    if others:
        assumptions.append(f"These keys are not known to moeplan and taken to have no weights: {', '.join(others)}.")
    return gaps


def _text(value: Any) -> str:
    return "[...]" if isinstance(value, list) else "{...}" if isinstance(value, Mapping) else json.dumps(value)
