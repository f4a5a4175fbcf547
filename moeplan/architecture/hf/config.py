"""A Hugging Face `config.json` as an `Architecture`: read by structure and aliases, offline, whoever wrote it.

What the file does not say comes from `moeplan.architecture.hf.types` or is taken for granted, and is said
(`assumptions`). What the model has beyond attention and gated feed-forward blocks (linear attention, state-space
layers, unknown keys with sizes) is listed (`gaps`): such a model has no total.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeplan.architecture import counting
from moeplan.architecture.blocks import AttentionRun, Blocks
from moeplan.architecture.hf import remarks, sizes
from moeplan.architecture.hf.attention import attention_fields, attention_of_blocks
from moeplan.architecture.hf.keys import ALIASES, Keys, class_defaults
from moeplan.architecture.hf.layers import moe_layers
from moeplan.architecture.hf.mixers import BARE, kinds_of_layers
from moeplan.architecture.hf.parts import extra_params
from moeplan.architecture.hf.types import EVERYTHING, Gap, TypeFacts, facts_by_type
from moeplan.architecture.hybrid import hybrid
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from moeplan.files import read_json

LARGEST_FILE = 5_000_000
"""Bytes beyond which a file is no model config."""
NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where multimodal configs keep their language model."""
TOWERS = ("vision_config", "audio_config", "audio_encoder_config", "vision_tower", "encoder_config", "vq_config")
"""Where they keep the rest, which is not counted."""
STATED = ("d_model", "num_layers", "num_heads", "vocab_size")
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


def language_model(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that describes the language model."""
    return _language_model(data)[0]


def _read(data: Mapping[str, Any]) -> ModelConfig:
    outer = data
    data, gaps = _language_model(data)
    model_type = Keys(data).text("model_type")
    keys = Keys(data, _defaults(model_type, nested=data is not outer))
    for name in ("model_type", *NESTED, *TOWERS):
        keys.get(name)
    known = facts_by_type().get(model_type)
    facts = known or TypeFacts("")
    assumptions = [facts.note] if facts.note else [] if known else [remarks.unknown_type(model_type)]
    gaps += facts.gaps
    fields: dict[str, Any] = {**facts.fields, **sizes.sizes(keys)}
    kinds = kinds_of_layers(keys, fields["num_layers"])
    alone = set(kinds or ()) & set(BARE)
    experts = sizes.experts(keys, facts)
    pattern = [kind == "moe" for kind in kinds or ()] if alone else moe_layers(keys, fields["num_layers"])
    if alone and kinds and _alternate(kinds):  # a block of one part each, in turns, is half as many of both parts
        kinds, pattern, alone = kinds[::2], pattern[1::2], set()
        fields |= {"num_layers": len(kinds), "norms_per_block": 2 * fields.get("norms_per_block", 1)}
    if not experts or not any(pattern):  # experts in no layer: a dense model
        experts, pattern = {}, []
        for name in (*_OF_EXPERTS, "num_shared_experts"):
            fields.pop(name, None)
    fields |= experts
    if experts:
        fields["d_latent"] = keys.number("moe_latent_size") or 0
    bare = [i for i, kind in enumerate(kinds or ()) if alone and kind not in BARE]
    fields |= sizes.feed_forward(keys, facts, pattern, len(bare), gaps)
    if facts.post_norms and keys.flag(facts.post_norms):
        fields["norms_per_block"] = 4
    fields |= attention_fields(keys, facts, gaps, assumptions)
    tied = keys.flag("tie_word_embeddings")
    if tied is None:
        tied = bool(fields.get("tied_embeddings", False))
        assumptions.append(f"tie_word_embeddings is absent: taken as {str(tied).lower()}.")
    fields["tied_embeddings"] = tied and facts.ties
    fields["num_mtp_layers"] = keys.number(*ALIASES["num_mtp_layers"]) or 0
    gaps += remarks.activation(keys, facts)
    gaps += remarks.beside_text_config(keys, model_type) if data is outer else []
    widths = fields.pop("dense_widths", ())
    if widths:
        least = min(width for width in widths if width)
        assumptions.append(f"The widths of its dense blocks differ by layer, from {least} to {max(widths)}.")
    extra = extra_params(keys, facts, fields, kinds, pattern, gaps)
    stated = keys.values(facts.blocks)
    if latent := stated.pop("d_latent", 0):
        fields |= {"d_latent": latent} if experts else {}
    attentions = attention_of_blocks(keys, facts, Architecture(**fields), kinds, gaps, assumptions)
    blocks = Blocks(
        attentions=attentions,
        bare_layers=tuple(bare),
        dense_widths=widths,
        gated=facts.gated is not None,
        extra_params=extra,
        **(stated if experts else {}),
    )
    if keys.flag("is_encoder_decoder"):
        gaps.append(Gap("an encoder beside the decoder", EVERYTHING))
    gaps += remarks.unread(keys, facts, assumptions, known=bool(attentions), typed=known is not None)
    assumptions += remarks.taken(keys, fields)
    if facts.paired:
        fields, blocks = _paired(fields, blocks)
    return ModelConfig(model_type, hybrid(fields, blocks), tuple(dict.fromkeys(gaps)), tuple(assumptions))


def _alternate(kinds: list[str]) -> bool:
    """Whether blocks that mix tokens and feed-forward parts take turns."""
    return len(kinds) % 2 == 0 and all((kind in BARE) == (i % 2 == 1) for i, kind in enumerate(kinds))


_OF_EXPERTS = ("router_bias", "router_correction_bias", "expert_bias", "shared_expert_gate")
"""Fields of `Architecture` that a dense model has not."""


def _defaults(model_type: str, *, nested: bool) -> dict[str, Any]:
    """What the class takes for absent keys, without what a file must state itself."""
    defaults = dict(class_defaults(model_type))
    for name in (alias for quantity in STATED for alias in ALIASES[quantity] if not nested):
        if not isinstance(defaults.get(name), str):  # what follows from other keys need not be stated
            defaults.pop(name, None)
    return defaults


def _paired(fields: dict[str, Any], blocks: Blocks) -> tuple[dict[str, Any], Blocks]:
    """The same with two blocks for each layer, the first with the experts (LongCat-Flash)."""
    number = 2 * fields["num_layers"]
    runs = tuple(
        AttentionRun(run.attention, tuple(i for layer in run.layers for i in (2 * layer, 2 * layer + 1)))
        for run in blocks.attentions
    )
    fields = {**fields, "num_layers": number, "d_ff": fields["d_dense_residual"]}
    fields |= {"moe_layer_pattern": tuple(i % 2 == 0 for i in range(number)), "num_dense_layers": 0}
    return fields, dataclasses.replace(blocks, attentions=runs)
