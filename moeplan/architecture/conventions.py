"""From an architecture and its tokens to the variables of a law: the one place where conventions are converted.

Every paper counts its own way: embeddings in or out, shared experts in or out, attention FLOPs full, causal or none. A
law file names its way in `conventions`; `Variables` turns a shape (an `Architecture`, or a grid of them as arrays) into
numbers counted that way. `CONVENTIONS` lists what there is; the first of each is the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moeplan.architecture import counting, ratios
from moeplan.architecture.ratios import as_float

Value = Any  # float or float64 array, as `moeplan.architecture.counting` says

CONVENTIONS: dict[str, dict[str, str]] = {
    "total_params": {
        "with_embeddings": "all params, both embeddings included",
        "without_input_embedding": "all params but the input embedding",
        "non_embedding": "all params but both embeddings",
    },
    "active_params": {
        "with_embeddings": "params a token passes through, both embeddings included",
        "without_input_embedding": "params a token passes through, without the input embedding",
        "non_embedding": "params a token passes through, without both embeddings",
    },
    "activation_ratio": {
        "routed": "num_active_experts / num_experts, routed experts only",
        "with_shared": "(active + shared) / (routed + shared) experts",
    },
    "expansion_ratio": {
        "with_shared": "total expert width / active expert width, shared experts in both",
        "routed": "num_experts / num_active_experts, routed experts only",
    },
    "granularity": {
        "gated": "2 * d_model / d_expert",
        "matched_ungated": "d_ff / d_expert of the ungated block with as many params: (8/3) * d_model / d_expert",
    },
    "flops_per_token": {
        "causal": "6 * (active params without input embedding) + causal attention; forward + backward",
        "non_embedding_full_attention": "6 * non-embedding active params + full attention, no logits",
        "six_active_params": "6 * active params, both embeddings included, no attention scores",
        "six_non_embedding": "6 * non-embedding active params, no attention scores",
    },
}
CONVENTIONS["train_flops"] = CONVENTIONS["flops_per_token"]

UNCONVENTIONAL = ("tokens", "tokens_per_param", "G", "shared_ratio", "num_experts")
"""Variables that everybody counts the same way."""


def default_convention(name: str) -> str:
    """The convention a law file means when it names none for `name`; "" for variables that have only one."""
    return next(iter(CONVENTIONS[name])) if name in CONVENTIONS else ""


class Variables:
    """The variables of one shape, under any convention, each computed once.

    `shape` is an `Architecture` or anything with its fields as int64 arrays; results are floats or float64 arrays.
    """

    def __init__(self, shape: Any, seq_len: int) -> None:
        self.shape, self.seq_len = shape, seq_len
        self._known: dict[tuple[str, str], Value] = {}

    @classmethod
    def known(cls, values: Mapping[tuple[str, str], Value], seq_len: int) -> Variables:
        """Variables of which no shape is at hand, by name and convention."""
        made = cls(None, seq_len)
        made._known = dict(values)
        return made

    def take(self, shape: Any, pick: Callable[[Value], Value]) -> Variables:
        """Of `shape`, some of this one's designs, as `pick` takes them out of a value: what is known stays known."""
        taken = Variables(shape, self.seq_len)
        taken._known = {key: pick(value) for key, value in self._known.items()}
        return taken

    def get(self, name: str, convention: str = "", tokens: Value = None) -> Value:
        """The variable `name`, counted by `convention` (default: the first one listed for it).

        `tokens` is needed by tokens, tokens_per_param and train_flops only. Raises `KeyError` for a variable that no
        architecture has.
        """
        convention = convention or default_convention(name)
        if name == "tokens":
            return tokens
        if name == "train_flops":
            return self.get("flops_per_token", convention) * tokens
        if name == "tokens_per_param":
            return tokens / self.get("active_params", "with_embeddings")
        key = (name, convention)
        if key in self._known:
            return self._known[key]
        found = _FUNCTIONS[name](self, convention)
        if name not in ("total_params", "active_params") or convention == "with_embeddings":
            self._known[key] = found  # the others are one subtraction, not worth the memory of a grid of them
        return found

    def select(self, names: tuple[str, ...], conventions: Mapping[str, str], tokens: Value = None) -> list[Value]:
        """The variables `names`, in order, as a law's form takes them."""
        return [self.get(name, conventions.get(name, ""), tokens) for name in names]

    def count(self, function: Callable[[Any], Any]) -> Value:
        """A count of whole numbers that `function` makes of a shape, here of this one."""
        return as_float(function(self.shape))

    def params(self, count: str, convention: str) -> Value:
        """`count` ("total_params" or "active_params") with or without embeddings."""
        if convention == "with_embeddings":
            return self.count(getattr(counting, count))
        everything = self.get(count, "with_embeddings")
        if convention == "without_input_embedding":
            return everything - self.shape.vocab_size * as_float(self.shape.d_model)
        return everything - as_float(counting.embedding_params(self.shape))


def _flops_per_token(v: Variables, convention: str) -> Value:
    if convention == "six_active_params":
        return 6 * v.get("active_params", "with_embeddings")
    matmul = 6 * v.get("active_params", "non_embedding")
    if convention == "six_non_embedding":
        return matmul
    causal = convention == "causal"
    scores = v.count(lambda shape: counting.attention_score_flops(shape, v.seq_len, causal=causal))
    return matmul + 6 * v.shape.vocab_size * as_float(v.shape.d_model) + scores if causal else matmul + scores


_FUNCTIONS: dict[str, Callable[[Variables, str], Value]] = {
    "total_params": lambda v, convention: v.params("total_params", convention),
    "active_params": lambda v, convention: v.params("active_params", convention),
    "flops_per_token": _flops_per_token,
    "activation_ratio": lambda v, convention: ratios.activation_ratio(v.shape, with_shared=convention == "with_shared"),
    "expansion_ratio": lambda v, convention: ratios.expansion_ratio(v.shape, with_shared=convention == "with_shared"),
    "granularity": lambda v, convention: ratios.granularity(v.shape, factor=2 if convention == "gated" else 8 / 3),
    "G": lambda v, convention: ratios.active_experts(v.shape),
    "shared_ratio": lambda v, convention: ratios.shared_ratio(v.shape),
    "num_experts": lambda v, convention: ratios.experts(v.shape)[0],
}
ARCHITECTURAL = (*_FUNCTIONS, "tokens", "tokens_per_param", "train_flops")
"""Every variable that an architecture with its tokens has."""
