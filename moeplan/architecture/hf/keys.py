"""The keys of a `config.json`: spellings, which of them say nothing about params, and which speak of other blocks."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from moeplan.errors import UsageError

ALIASES: dict[str, tuple[str, ...]] = {
    "d_model": ("hidden_size", "d_model", "n_embd", "dim"),
    "num_layers": ("num_hidden_layers", "n_layers", "n_layer", "num_layers"),
    "num_heads": ("num_attention_heads", "n_heads", "n_head"),
    "vocab_size": ("vocab_size", "padded_vocab_size"),
    "num_kv_heads": (
        "num_key_value_heads",
        "num_kv_heads",
        "n_kv_heads",
        "num_attention_groups",
        "attn_config.kv_n_heads",
    ),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels"),
    "num_experts": (
        "n_routed_experts",
        "num_experts",
        "num_local_experts",
        "moe_num_experts",
        "moe_num_primary_experts",
        "ffn_config.moe_num_experts",
    ),
    "num_active_experts": (
        "num_experts_per_tok",
        "moe_topk",
        "moe_k",
        "num_experts_per_token",
        "moe_top_k",
        "top_k_experts",
        "num_experts_per_topk",
        "experts_per_token",
        "ffn_config.moe_top_k",
    ),
    "d_expert": ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"),
    "d_ff": (
        "intermediate_size",
        "ffn_hidden_size",
        "ffn_config.ffn_hidden_size",
    ),
    "num_shared_experts": ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts"),
    "shared_width": (
        "shared_expert_intermediate_size",
        "shared_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "share_expert_dim",
        "share_expert_dims",
        "shared_experts_intermediate_size",
    ),
    "num_mtp_layers": ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_layers", "mtp_num_hidden_layers"),
}
"""Spellings of one quantity. Two that differ contradict each other, but a feed-forward width may stand beside an expert
width; see `moeplan.architecture.hf.config`."""

GATED = ("silu", "swish", "swiglu")
"""Activations that in this kind of model always gate: x -> down(act(gate(x)) * up(x))."""

_LARGEST = 2**31 - 1
_NO_PARAMS = re.compile(
    r"""
    (?!.*(ffn|proj|adapter|dim_factor)) .*_(ids?|theta|dropout|dropout_prob|pdrop|eps|epsilon|coefs?|coeff|alpha|beta|
        factor|multiplier|scale|scaling|noise|std|range|softcapping|softcap|limit|dtype|interleave|window)
    | (is|max|min|rope|rotary|sliding|quantization|compression|unsloth|auto|tokenizer|transformers|torch|return|pruned|
       initializer|num_return|forced|exponential|suppress|no_repeat|bad_words|begin|encoder_no|tf|pretraining|finetuning|
       model_max|seq|topk|score|scoring|ep|use_flash|use_sliding|decoder_start)_.*
    | output_(attentions|hidden_states|router_logits|scores|dropout|past|gate)
    | moe_(aux|z)_loss.* | moe_(router|gate|token|capacity|norm|dropout)_.* | .*router_aux.* | .*aux_loss.*
    | enable_.*fp32.*
    | architectures|model_type|dtype|seed|length_penalty|repetition_penalty|diversity_penalty|temperature|top_k|top_p|
      typical_p|num_beams|num_beam_groups|early_stopping|do_sample|remove_invalid_values|id2label|label2id|problem_type|
      task_specific_params|chunk_size_feed_forward|use_cache|use_bfloat16|use_return_dict|use_rmsnorm|
      gradient_checkpointing|norm_topk_prob|moe_renormalize|route_norm|n_group|num_expert_group|clip_qkv|floor_scale|
      qk_head_dim|query_pre_attn_scalar|global_attn_every_n_layers|attention_chunk_size|attn_temperature_tuning|
      no_rope_layers|no_rope_layer_interval|mup_enabled|num_logits_to_keep|logits_to_keep|hidden_dropout|dropout|
      embedding_dropout|attention_dropout|tie_encoder_decoder|add_cross_attention|cross_attention_hidden_size|
      dim_model_base|scale_emb|scale_depth|swiglu_limit|use_attention_mask|max_length|min_length|default_chat_template|
      _?(prefix_dense_)?sliding_window_pattern|use_associative_scan|scale_embedding|original_max_position_embeddings|initial_context_length|group_limited_greedy|multi_gate|seq_aux|bos_token|eos_token|pad_token|
      _.*|quantization|transformers\.js_config|(num_)?mtp_.*|num_mtp_.*|use_mtp|use_routing_bias|use_moe_router_bias|
      use_expert_bias|chunk_size|block_size|vocab_size_per_layer_input|num_expert_groups|num_limited_groups|nope_layer_interval|dense_list|org_vocab_size|xd_num|
      use_grouped_(mm|topk)|for_llm_compressor|capacity_factor|use_rotary_pos_emb|mla_use_nope|use_logits_norm|logit_softcap|is_decoder|generation_config|cache_implementation|type_vocab
    """,
    re.VERBOSE,
)
"""Keys about tokens, positions, dropout, routing, generation, files: none has weights."""

OTHER_BLOCKS: tuple[tuple[re.Pattern[str], str, tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), what, groups)
    for pattern, what, groups in (
        (r"linear_.*|short_conv_.*|kda_.*|layer_group_size|attn_type_list|full_attention_interval|lightning.*|"
         r"full_attn_alpha_factor|full_attn_beta_factor|linear_attn.*", "linear-attention layers", ("attention",)),
        (r"mamba_.*|use_mamba.*|ssm_.*|attn_layer_.*|layers_block_type|hybrid_.*|n_mamba_heads|state_size|time_step_.*",
         "state-space (Mamba) layers", ("attention", "dense_ffn", "norms")),
        (r"conv_.*|full_attn_idxs", "short-convolution layers", ("attention",)),
        (r"share_q_dim|num_attention_groups", "multi-matrix-factorised attention", ("attention",)),
        (r"use_cla|num_kv_shared_layers", "layers that share keys and values with others (cross-layer attention)",
         ("attention",)),
        (r"index_.*|indexer_.*", "the indexer of sparse attention", ("attention",)),
        (r"swa_.*|add_swa.*|add_full_attention_sink_bias", "sliding-window layers of other shape", ("attention",)),
        (r"per_layer_config|block_configs|num_attention_heads_per_layer|activation_sparsity_pattern",
         "layers that differ from each other", ("attention", "dense_ffn")),
        (r"hidden_size_per_layer_input", "embeddings of each layer's own",
         ("input_embedding", "attention", "dense_ffn")),
        (r"zero_expert.*", "experts that compute nothing", ("router", "routed_experts")),
        (r"hc_.*", "hyper-connections", ("norms",)),
        (r"lm_head_bias", "a bias on the output head", ("output_head",)),
        (r"mlp_bias|add_bias_linear|ffn_bias", "biases in feed-forward blocks",
         ("dense_ffn", "routed_experts", "shared_experts")),
        (r"use_bias|bias|enable_bias", "biases everywhere",
         ("attention", "dense_ffn", "routed_experts", "shared_experts", "router", "norms")),
    )
)  # fmt: skip
"""Keys of blocks that are not counted: a pattern, what they speak of, the groups of params they leave unknown."""

BIASES = ("mlp_bias", "add_bias_linear", "ffn_bias", "use_bias", "enable_bias", "lm_head_bias")
"""Those of them that are switches."""


SIZES = re.compile(
    r"(num|n)_.*|.*_(size|sizes|dim|dims|rank|ranks|heads|layers|experts|slots|width|widths|features|channels)|widths?"
)
"""Names that speak of sizes: what moeplan does not know under one may have weights."""
PARTS = re.compile(r".*(norm|gate|bias|sink|lora|adapter).*")
"""Names of parts that have weights."""
_GROUPS_OF_WORDS = (
    (re.compile(r"expert|moe"), ("routed_experts", "shared_experts", "router")),
    (re.compile(r"attn|attention|head|qk|kv"), ("attention",)),
    (re.compile(r"vocab|embed"), ("input_embedding", "output_head")),
    (re.compile(r"norm"), ("norms",)),
    (re.compile(r"ffn|mlp|intermediate"), ("dense_ffn", "routed_experts", "shared_experts")),
)


def groups_of(key: str) -> tuple[str, ...]:
    """The groups of params that an unknown key speaks of, by the words in its name; none for "all of the blocks"."""
    return next((groups for pattern, groups in _GROUPS_OF_WORDS if pattern.search(key)), ())


@functools.cache
def _tables() -> dict[str, Any]:
    table: dict[str, Any] = json.loads((files("moeplan") / "data" / "hf_defaults.json").read_text(encoding="utf-8"))
    return table


def class_defaults(model_type: str) -> Mapping[str, Any]:
    """What the class of a model type takes for absent keys (`data/hf_defaults.json`); empty for an unknown type."""
    tables = _tables()
    row: Mapping[str, Any] = tables["types"].get(tables["flat"].get(model_type, model_type), {})
    return row


def reads_text_config(model_type: str) -> bool:
    """Whether the class of a type reads its language model from text_config alone, not from keys beside it."""
    return model_type in _tables()["flat"]


def expanded(rule: Any, length: int) -> list[Any]:
    """A default list, one entry a layer, by its rule: a list that repeats, or an object.

    Its "period" repeats after its "head", from the last layer on if "reversed", but for its "last" entry.
    """
    rule = {"period": rule} if isinstance(rule, list) else rule
    head, period, last = rule.get("head", []), rule["period"], rule.get("last")
    found = [*head, *(period[i % len(period)] for i in range(max(length - len(head), 0)))][:length]
    if rule.get("reversed"):
        found.reverse()
    return found if last is None else [*found[:-1], last]


class Keys:
    """A config's keys; remembers which were read, and which were absent and taken from `defaults`."""

    def __init__(self, data: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.data, self.defaults, self.read = data, defaults, set[str]()
        self.taken: dict[str, Any] = {}

    def stated(self) -> Keys:
        """The same keys without defaults: what the file itself says."""
        stated = Keys(self.data)
        stated.read = self.read
        return stated

    def default(self, key: str) -> Any:
        """What the class takes for an absent key; None if it takes nothing."""
        value = self.defaults.get(key)
        return self.formula(value[1:]) if isinstance(value, str) and value.startswith("=") else value

    def formula(self, text: str) -> int | None:
        """What a formula over keys says: "a*b", "a/b" (rounded down) or "a|b" (the first of two keys that is there).

        None where a key is absent; "" is 1.
        """
        first, slash, second = text.partition("/")
        product = 1
        for factor in first.split("*") if first else ():
            number = self.number_of_first(*factor.split("|"))
            if number is None:
                return None
            product *= number
        divisor = self.number(second) if slash else 1
        return product // divisor if divisor else None

    def number_of_first(self, *keys: str) -> int | None:
        """The whole number under the first of `keys` that the file states, else under the first with a default."""
        stated = self.stated()
        for key in keys:
            self.get(key)  # says the same again where it stands beside another
        for key in keys:
            if (number := stated.number(key)) is not None:
                return number
        return next((number for key in keys if (number := self.number(key)) is not None), None)

    def values(self, row: Mapping[str, object]) -> dict[str, Any]:
        """Fields of a row of `data/hf_types.json`, their formulas worked out; not those whose keys are absent."""
        found = {
            name: self.formula(value[1:]) if isinstance(value, str) and value.startswith("=") else value
            for name, value in row.items()
        }
        return {name: value for name, value in found.items() if value is not None}

    def listed(self, name: str, length: int) -> list[Any] | None:
        """The list under a key, one entry a layer; if it is absent, the class's default at this length.

        Raises `UsageError` for a list of another length.
        """
        found = self.stated().entries(name)
        if found is not None:
            if len(found) != length:
                raise UsageError(f"{name} has {len(found)} entries, num_hidden_layers is {length}")
            return found
        rule = self.defaults.get(name)
        if not rule:
            return None
        self.taken[name] = rule
        return expanded(rule, length)

    def get(self, key: str) -> Any:
        """The value of a key, or of one inside an object ("ffn_config.moe_top_k"); None if it is absent."""
        self.read.add(key)
        outer, dot, inner = key.partition(".")
        value = self.data.get(outer)
        if not dot or value is None:
            return value
        if not isinstance(value, Mapping):
            raise UsageError(f"{outer} is {_short(value)}, must be an object")
        return value.get(inner)

    def present(self, *keys: str) -> dict[str, Any]:
        """The keys that are there and not null, with their values; if none stands in the file, the class's default."""
        found = {key: value for key in keys if (value := self.get(key)) is not None}
        if found or any(key in self.data for key in keys):
            return found
        for key in keys:
            if (value := self.default(key)) is not None:
                self.taken[key] = value
                return {key: value}
        return {}

    def whole(self, *keys: str) -> dict[str, int]:
        """The whole numbers under `keys`; a list of equal ones, one a layer, counts as one."""
        found = {}
        for key, value in self.present(*keys).items():
            number = value
            if isinstance(value, list) and value and all(item == value[0] for item in value):
                number = value[0]
            if isinstance(number, float) and number.is_integer():
                number = int(number)
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _LARGEST:
                raise UsageError(f"{key} is {_short(value)}, must be a whole number from 0 to {_LARGEST}")
            found[key] = number
        return found

    def number(self, *keys: str) -> int | None:
        """The whole number that `keys` agree on; None if all are absent."""
        found = self.whole(*keys)
        if len(set(found.values())) > 1:
            (first, x), (second, y) = sorted(found.items(), key=lambda item: item[1])[:: len(found) - 1]
            raise UsageError(f"{first} {x} and {second} {y} contradict each other")
        return next(iter(found.values()), None)

    def size(self, *keys: str) -> int | None:
        """The whole number of at least 1 that `keys` agree on; None if all are absent."""
        for key, value in self.whole(*keys).items():
            if value == 0:
                raise UsageError(f"{key} is 0, must be at least 1")
        return self.number(*keys)

    def objects(self, name: str, part: str, length: int) -> list[Mapping[str, Any]]:
        """One part of every object in a list with one for each layer; empty if the list is absent."""
        listed = self.entries(name)
        if listed is None:
            return []
        found = [entry.get(part) if isinstance(entry, Mapping) else None for entry in listed]
        if len(found) != length or not all(isinstance(entry, Mapping) for entry in found):
            raise UsageError(f"{name} must hold an object with {part} for each of {length} layers")
        return [entry for entry in found if entry is not None]

    def by_layer(self, name: str, length: int) -> dict[int, dict[str, int | None]]:
        """Whole numbers that an object states for single layers, by layer and key; empty if it is absent."""
        stated = self.get(name)
        if stated is None:
            return {}
        if not isinstance(stated, Mapping):
            raise UsageError(f"{name} is {_short(stated)}, must be an object")
        found = {}
        for layer, values in stated.items():
            if not str(layer).isdigit() or int(layer) >= length or not isinstance(values, Mapping):
                raise UsageError(f"{name} must hold an object for layers from 0 to {length - 1}, not {_short(layer)}")
            own = Keys(values)
            found[int(layer)] = {key: own.number(key) for key in values}
        return found

    def check_switches(self, *keys: str) -> None:
        """Raise `UsageError` for a switch among `keys` that is not true, false or absent; none of them is read."""
        for key in keys:
            if not isinstance(self.data.get(key), bool | None):
                raise UsageError(f"{key} is {_short(self.data[key])}, must be true or false")

    def text(self, key: str) -> str:
        """The text under `key`; "" if it is absent."""
        value = self.get(key)
        if value is None or isinstance(value, str):
            return value or ""
        raise UsageError(f"{key} is {_short(value)}, must be text")

    def flag(self, *keys: str) -> bool | None:
        """The switch that `keys` agree on; None if all are absent."""
        found = self.present(*keys)
        for key, value in found.items():
            if not isinstance(value, bool):
                raise UsageError(f"{key} is {_short(value)}, must be true or false")
        if len(set(found.values())) > 1:
            raise UsageError(f"{' and '.join(found)} contradict each other")
        return next(iter(found.values()), None)

    def entries(self, key: str) -> list[Any] | None:
        """The list under `key`; None if it is absent."""
        value = self.present(key).get(key)
        if value is None or isinstance(value, list):
            return value
        raise UsageError(f"{key} is {_short(value)}, must be a list")

    def unread(self) -> dict[str, Any]:
        """Keys that nobody read, that may have weights, and that are not switched off.

        Text and broken numbers (rates, scales) have no weights, but under a key of `OTHER_BLOCKS`; nor has what
        `_NO_PARAMS` names.
        """
        known = {key.partition(".")[0] for key in self.read}
        return {
            key: value
            for key, value in self.data.items()
            if key not in known
            and value not in (None, False, 0, [], {}, "")
            and not _NO_PARAMS.fullmatch(key)
            and (_weighs(value) or any(pattern.fullmatch(key) for pattern, _, _ in OTHER_BLOCKS))
        }


def _weighs(value: object) -> bool:
    return not isinstance(value, str) and not (isinstance(value, float) and not value.is_integer())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
