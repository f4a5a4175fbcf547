"""Sizes of a `config.json`: width, depth and vocabulary, experts, and which layers have them."""

from __future__ import annotations

from typing import Any

from moeplan.architecture.hf.keys import ALIASES, Keys
from moeplan.architecture.hf.types import Gap, TypeFacts
from moeplan.errors import UsageError

MOST_LAYERS = 10_000
"""Layers beyond which a config is a mistake."""
OF_ONE = (
    "moe_shared_expert_intermediate_size", "share_expert_dim", "share_expert_dims", "shared_experts_intermediate_size"
)  # fmt: skip
"""Keys that are the width of one shared expert, where they are not that of all."""
SWITCHES = ("use_moe", "is_moe", "enable_moe_block", "use_moe_block")
"""Keys that switch experts off."""
_WIDE = ("intermediate_size_mlp", "dense_intermediate_size")
"""Beside these, intermediate_size is the experts'."""


def sizes(keys: Keys) -> dict[str, int]:
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


def experts(keys: Keys, facts: TypeFacts) -> dict[str, int]:
    """Number, top-k and width of experts, and the shared ones; empty for a dense model."""
    if keys.flag(*SWITCHES) is False:
        for quantity in ("num_experts", "num_active_experts", "d_expert", "num_shared_experts", "shared_width"):
            keys.present(*ALIASES[quantity])
        return {}
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
    stated = keys.stated()
    if facts.expert_width:
        width = facts.expert_width
    elif width is None or (stated.number(*_WIDE[1:]) and stated.number(*ALIASES["d_expert"]) is None):
        # a class without a key of its own for it (Mixtral, gpt-oss) has experts as wide as its dense blocks would be
        width = keys.number("intermediate_size") or keys.number("ffn_hidden_size", "ffn_config.ffn_hidden_size")
    if not width:
        raise UsageError(f"lacks {ALIASES['d_expert'][0]}, the width of its experts")
    shared = _shared(keys, width)
    if facts.fixed_shared:
        shared = {"num_shared_experts": 1, "d_shared_expert": width}
    if facts.one_shared and shared.get("num_shared_experts"):
        shared["num_shared_experts"] = 1
    return {"num_experts": num_experts, "num_active_experts": num_active, "d_expert": width, **shared}


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


def feed_forward(keys: Keys, facts: TypeFacts, pattern: list[bool], bare: int, gaps: list[Gap]) -> dict[str, Any]:
    """Which layers have experts (an empty pattern: none), and how wide the others are.

    The fields are those of `Architecture`, and "dense_widths" of `Blocks` where dense layers differ in width.
    """
    widths = _block_widths(keys, gaps) or _stated_widths(keys, facts)
    width = max(widths) if widths else keys.number(*_WIDE) or keys.number("intermediate_size")
    width = width or keys.number(*ALIASES["d_ff"][1:]) or 0
    fields: dict[str, Any] = {}
    if pattern:
        first = pattern.index(True)
        if all(pattern[first:]):
            fields["num_dense_layers"] = first
        else:
            fields["moe_layer_pattern"] = tuple(pattern)
    if sum(pattern) + bare < len(pattern) or not pattern or bare or facts.dense_beside:
        keys.size(*_WIDE)
        if not width:
            raise UsageError("lacks intermediate_size, the width of its dense layers")
        if sum(pattern) < len(pattern) or not pattern:
            fields["d_ff"] = width
    if pattern and facts.dense_beside:
        fields["d_dense_residual"] = width
    if widths and len(set(widths)) > 1:
        fields["dense_widths"] = tuple(0 if pattern and pattern[i] else w for i, w in enumerate(widths))
    return fields


def _stated_widths(keys: Keys, facts: TypeFacts) -> list[int]:
    """The width of every layer's dense block, where the file says it by layer; empty where it does not."""
    listed = keys.data.get("intermediate_size")
    number = keys.number(*ALIASES["num_layers"]) or 0
    if isinstance(listed, list) and len(set(map(str, listed))) > 1:
        keys.get("intermediate_size")
        if len(listed) != number or any(isinstance(w, bool) or not isinstance(w, int) or w < 1 for w in listed):
            raise UsageError(
                f"intermediate_size is {listed!r:.40}, must be a whole number, or one for each of {number} layers"
            )
        return listed
    last = keys.number("num_kv_shared_layers") if facts.shares_last else 0
    if last and keys.flag("use_double_wide_mlp"):
        width = keys.number("intermediate_size") or 0
        return [width] * (number - last) + [2 * width] * last
    own = {i: stated["intermediate_size"] for i, stated in keys.by_layer("per_layer_config", number).items()
           if stated.get("intermediate_size")}  # fmt: skip
    if own:
        width = keys.number("intermediate_size") or 0
        return [own.get(i) or width for i in range(number)]
    return []


_ROUNDING = 256
"""What DeciLM's widths are rounded up to."""


def _block_widths(keys: Keys, gaps: list[Gap]) -> list[int]:
    """Widths by block_configs (DeciLM, Nemotron-NAS): 2/3 of ffn_mult*d_model, rounded up to 256; 0 for none."""
    d_model, number = keys.number(*ALIASES["d_model"]) or 0, keys.number(*ALIASES["num_layers"]) or 0
    found = []
    for block in keys.objects("block_configs", "ffn", number):
        factor = block.get("ffn_mult")
        if block.get("replace_with_linear") or block.get("sparsify"):
            gaps.append(Gap("feed-forward blocks that are one map or sparse (block_configs)", ("dense_ffn",)))
        if block.get("no_op") or block.get("replace_with_linear"):
            found.append(0)
        elif isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < 1000:
            raise UsageError(f"block_configs has the ffn_mult {factor!r:.40}, must be a number above 0")
        else:
            found.append(-(-int(2 * factor * d_model / 3) // _ROUNDING) * _ROUNDING)
    return found
