"""Which blocks of a `config.json` mix tokens how: attention of one or several shapes, linear attention, state spaces.

`kinds_of_layers` finds the kind of every block by any of the spellings; `attention_of_kind` reads one kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from moeplan.architecture.attention import Attention
from moeplan.architecture.attention.delta import GatedDeltaNet, KimiDeltaAttention, LightningAttention
from moeplan.architecture.attention.gqa import GroupedQueryAttention
from moeplan.architecture.attention.mamba import Mamba, Mamba2
from moeplan.architecture.attention.mla import LatentAttention
from moeplan.architecture.attention.short_convolution import NoAttention, ShortConvolution
from moeplan.architecture.hf.keys import Keys
from moeplan.errors import UsageError

FULL = (
    "full_attention", "attention", "full", "indexed_attention", "hybrid", "minimax_m3_sparse",
    "compressed_sparse_attention", "heavily_compressed_attention",
)  # fmt: skip
"""Names of attention over all tokens before."""
WINDOWED = ("sliding_attention", "chunked_attention", "sliding", "reference_sliding_attention", "hybrid_sliding")
"""Names of attention in a window or a chunk."""
LINEAR = ("linear_attention", "mamba", "linear", "kda", "gated_delta_net")
"""Names of blocks with a recurrent state; other keys say which."""
BARE = ("moe", "mlp")
"""Names of blocks that are a feed-forward part alone."""
_LETTERS = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}


def kinds_of_layers(keys: Keys, num_layers: int) -> list[str] | None:
    """The kind of every block; None if no key tells blocks apart. The file's own words go before the class's default.

    Raises `UsageError` for a list of another length than there are blocks.
    """
    for name in ("layer_types", "layers_block_type", "hybrid_override_pattern"):
        listed = keys.stated().get(name)
        if isinstance(listed, str) and name == "hybrid_override_pattern":
            unknown = set(listed) - set(_LETTERS)
            if unknown:
                raise UsageError(f"{name} has the unknown letter {min(unknown)!r}; known are {', '.join(_LETTERS)}")
            listed = [_LETTERS[letter] for letter in listed]
        if listed is None:
            continue
        if not isinstance(listed, list):
            raise UsageError(f"{name} is {listed!r:.40}, must be a list")
        if len(listed) != num_layers:
            raise UsageError(f"{name} has {len(listed)} entries, num_hidden_layers is {num_layers}")
        return [str(kind) for kind in listed]
    if blocks := keys.objects("block_configs", "attention", num_layers):
        return [_kind_of_block(block) for block in blocks]
    for name, find in _PATTERNS.items():
        if keys.stated().get(name) is not None:
            return find(keys, num_layers)
    if (kinds := keys.listed("layer_types", num_layers)) is not None:
        return [str(kind) for kind in kinds]
    if keys.default("attn_layer_period"):
        return _periodic(keys, num_layers)
    return None


def _kind_of_block(block: Mapping[str, Any]) -> str:
    """The kind of a block by DeciLM's block_configs (Nemotron-NAS)."""
    if block.get("replace_with_linear") or block.get("sparsify"):
        return "one map in place of attention"
    return "no_attention" if block.get("no_op") else "full_attention"


def _interval(keys: Keys, name: str, other: str, num_layers: int) -> list[str]:
    step = keys.size(name) or 1
    return ["full_attention" if (i + 1) % step == 0 else other for i in range(num_layers)]


def _periodic(keys: Keys, num_layers: int) -> list[str]:
    step, offset = keys.size("attn_layer_period") or 1, keys.number("attn_layer_offset") or 0
    return ["attention" if i % step == offset else "mamba" for i in range(num_layers)]


def _listed(keys: Keys, name: str, one: str, zero: str, num_layers: int) -> list[str]:
    found = keys.entries(name) or []
    if len(found) != num_layers or any(item not in (0, 1) for item in found):
        raise UsageError(f"{name} must hold 0 or 1 for each of {num_layers} layers")
    return [one if item else zero for item in found]


def _chosen(keys: Keys, name: str, chosen: str, others: str, num_layers: int, first: int = 0) -> list[str]:
    found = keys.get(name)
    if not isinstance(found, list) or any(
        isinstance(i, bool) or not isinstance(i, int) or not first <= i < num_layers + first for i in found
    ):
        raise UsageError(f"{name} must list layers from {first} to {num_layers - 1 + first}")
    return [chosen if i + first in found else others for i in range(num_layers)]


_BY_RATIO = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
"""DeepSeek-V4's kinds of attention by the tokens that make one entry."""
_PATTERNS: dict[str, Callable[[Keys, int], list[str]]] = {
    "full_attention_interval": lambda keys, n: _interval(keys, "full_attention_interval", "linear_attention", n),
    "layer_group_size": lambda keys, n: _interval(keys, "layer_group_size", "linear_attention", n),
    "linear_attn_config": lambda keys, n: _chosen(
        keys, "linear_attn_config.full_attn_layers", "full_attention", "linear_attention", n, 1
    ),
    "attn_type_list": lambda keys, n: _listed(keys, "attn_type_list", "full_attention", "linear_attention", n),
    "compress_ratios": lambda keys, n: [_BY_RATIO.get(ratio, f"compressed {ratio!r:.20}") for ratio in
                                        keys.entries("compress_ratios") or ()][:n],
    "sparse_attention_config": lambda keys, n: _listed(
        keys, "sparse_attention_config.sparse_attention_freq", "minimax_m3_sparse", "full_attention", n
    ),
    "local_layer_ids": lambda keys, n: _chosen(keys, "local_layer_ids", "hybrid_sliding", "hybrid", n),
    "full_attn_idxs": lambda keys, n: _chosen(keys, "full_attn_idxs", "full_attention", "conv", n),
    "attn_layer_period": _periodic,
    "hybrid_layer_pattern": lambda keys, n: _listed(
        keys, "hybrid_layer_pattern", "sliding_attention", "full_attention", n
    ),
    "global_attn_every_n_layers": lambda keys, n: _interval(
        keys, "global_attn_every_n_layers", "sliding_attention", n
    ),
}  # fmt: skip
"""Other keys that tell blocks apart, each with what it says."""


def attention_of_kind(kind: str, keys: Keys, plain: Attention) -> Attention | None:
    """The attention of blocks of one kind; None where no key says its sizes. `plain` is full attention."""
    if kind in FULL:
        return _full(keys, plain)
    if kind in WINDOWED:
        return _windowed(kind, keys, plain)
    if kind in (*BARE, "no_attention"):
        return NoAttention()
    if kind == "conv" and keys.size("conv_L_cache"):
        channels = keys.size("conv_dim") or keys.size("hidden_size")
        taps = keys.size("conv_L_cache") or 0
        return ShortConvolution(channels=channels, conv_kernel=taps, bias=bool(keys.flag("conv_bias")))
    if kind in LINEAR:
        return next((found for read in _RECURRENT if (found := read(keys)) is not None), None)
    return None


def _full(keys: Keys, plain: Attention) -> Attention:
    """Attention over all tokens, where keys of its own tell it from that in windows (Gemma 4)."""
    if not isinstance(plain, GroupedQueryAttention):
        return plain
    own: dict[str, Any] = {
        "head_dim": keys.size("global_head_dim"),
        "num_kv_heads": keys.size("num_global_key_value_heads"),
        "values_are_keys": keys.flag("attention_k_eq_v"),
    }
    stated = {name: value for name, value in own.items() if value is not None}
    return dataclasses.replace(plain, **stated)


def _windowed(kind: str, keys: Keys, plain: Attention) -> Attention | None:
    chunked = kind == "chunked_attention"
    window = (
        keys.size("attention_chunk_size") if chunked else keys.number_of_first("sliding_window", "sliding_window_size")
    )
    if not window:
        return plain
    if isinstance(plain, LatentAttention):
        return dataclasses.replace(plain, window=window, index_heads=0, index_head_dim=0, index_topk=0)
    if not isinstance(plain, GroupedQueryAttention):
        return plain  # a kind with a window of its own
    own: dict[str, Any] = {
        "num_heads": keys.size("swa_num_attention_heads"),
        "num_kv_heads": keys.size("swa_num_key_value_heads"),
        "head_dim": keys.size("swa_head_dim"),
        "v_head_dim": keys.size("swa_v_head_dim"),
        "attention_sinks": keys.flag("add_swa_attention_sink_bias"),
    }
    if keys.text("model_type") == "mimo_v2_flash":  # MiMoV2FlashAttention: twice the KV heads, and sinks
        own["num_kv_heads"] = own["num_kv_heads"] or 2 * plain.num_kv_heads
        own["attention_sinks"] = own["attention_sinks"] is not False
    stated = {name: value for name, value in own.items() if value is not None}
    return dataclasses.replace(plain, **stated, window=window, chunked=chunked)


def _gated_delta_net(keys: Keys) -> Attention | None:
    names = {
        "num_key_heads": "linear_num_key_heads",
        "num_value_heads": "linear_num_value_heads",
        "key_head_dim": "linear_key_head_dim",
        "value_head_dim": "linear_value_head_dim",
    }
    sizes = {name: keys.size(key) for name, key in names.items()}
    if any(value is None for value in sizes.values()):
        return None
    return GatedDeltaNet(**sizes, conv_kernel=keys.size("linear_conv_kernel_dim") or 4)


def _kimi_delta(keys: Keys) -> Attention | None:
    names = {
        "linear_attn_config.num_heads": "linear_num_heads",
        "linear_attn_config.head_dim": "linear_head_dim",
        "linear_attn_config.short_conv_kernel_size": "linear_conv_kernel_dim",
    }
    heads, width, taps = (keys.number_of_first(*pair) for pair in names.items())
    if not heads or not width:
        return None
    keys.get("short_conv_kernel_size"), keys.get("layer_group_size")  # said again by the kinds of layers
    low_rank = keys.text("model_type") != "bailing_hybrid"
    return KimiDeltaAttention(num_heads=heads, head_dim=width, conv_kernel=taps or 4, low_rank=low_rank)


def _lightning(keys: Keys) -> Attention | None:
    if keys.text("model_type") not in ("minimax", "minimax_text_01"):
        return None
    heads, d_model = keys.size("num_attention_heads") or 1, keys.size("hidden_size") or 1
    return LightningAttention(num_heads=heads, head_dim=keys.size("head_dim") or d_model // heads)


def _mamba2(keys: Keys) -> Attention | None:
    heads, width = keys.size("mamba_num_heads", "mamba_n_heads"), keys.size("mamba_head_dim", "mamba_d_head")
    groups, state = keys.size("n_groups", "mamba_n_groups"), keys.size("ssm_state_size", "mamba_d_state")
    if not heads or not width or not state:
        return None
    keys.get("expand"), keys.get("mamba_expand"), keys.get("mamba_chunk_size")
    taps, bias = keys.size("conv_kernel", "mamba_d_conv") or 4, keys.flag("use_conv_bias", "mamba_conv_bias")
    own, maps = keys.flag("use_bias"), keys.flag("mamba_proj_bias")  # NemotronH's class reads the first alone
    return Mamba2(
        num_heads=heads, head_dim=width, num_groups=groups or 1, state_dim=state, conv_kernel=taps,
        conv_bias=bias is not False, bias=bool(maps if own is None else own),
    )  # fmt: skip


def _mamba(keys: Keys) -> Attention | None:
    expand, state, d_model = keys.size("mamba_expand"), keys.size("mamba_d_state"), keys.size("hidden_size")
    if not expand or not state or not d_model:
        return None
    rank = keys.stated().get("mamba_dt_rank")
    step = -(-d_model // 16) if rank in (None, "auto") else keys.size("mamba_dt_rank")
    return Mamba(
        inner_width=expand * d_model, state_dim=state, step_rank=step, conv_kernel=keys.size("mamba_d_conv") or 4,
        conv_bias=keys.flag("mamba_conv_bias") is not False, bias=bool(keys.flag("mamba_proj_bias")),
        inner_norms=keys.text("model_type") == "jamba",
    )  # fmt: skip


_RECURRENT = (_lightning, _gated_delta_net, _kimi_delta, _mamba2, _mamba)
"""Readers of blocks with a recurrent state; the first whose keys are there is the block's."""


def indexed(plain: Attention, keys: Keys) -> Attention:
    """Latent attention with its indexer, where the keys say one."""
    if not isinstance(plain, LatentAttention):
        return plain
    heads, width, top = keys.size("index_n_heads"), keys.size("index_head_dim"), keys.size("index_topk")
    if not heads or not width:
        return plain
    return dataclasses.replace(plain, index_heads=heads, index_head_dim=width, index_topk=top or 2048)
