"""Inference memory [bytes], exactly, from the integer shape: weights by dtype and KV cache, on one device or several.

As in `moeplan.architecture.counting`, a *shape* is anything with the fields of
`moeplan.architecture.shape.Architecture`, whose sizes may be integers or int64 arrays of equal length: the search and
the report weigh by the very same lines. Activations and the runtime's own buffers are not counted (the headroom of a
memory limit is for them), nor are multi-token-prediction layers, which serving does not need. Training memory is in
`moeplan.cost.training`.

Weights are stored as

* bf16: 2 bytes each;
* fp8: 1 byte, and one fp32 scale a block of 128x128 (DeepSeek-V3, arXiv 2412.19437, section 3.3, and its released
  checkpoint);
* int8: 1 byte, and one bf16 scale an output row (per-channel scales, as in LLM.int8(), arXiv 2208.07339);
* int4: half a byte, and one bf16 scale for every 128 weights along the input (the usual group size of GPTQ, arXiv
  2210.17323, and AWQ, arXiv 2306.00978; symmetric, so no zero points);
* mxfp4: half a byte, and one byte of scale for every 32 weights along the input (OCP Microscaling Formats 1.0, section
  5.3); of routed experts alone, as in gpt-oss's released checkpoint.

Only the matrices of attention and of feed-forward blocks (dense, shared, routed) are stored so. Embeddings, output
head, router, norms, biases, sinks and gates stay bf16 under every dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from moeplan.architecture import counting
from moeplan.architecture.counting import Shape, Size
from moeplan.errors import UsageError

WeightDtype = Literal["bf16", "fp8", "int8", "int4", "mxfp4"]
"""How the weights of the large matrices are stored."""
KVDtype = Literal["bf16", "fp8"]
"""How cached keys, values and latents are stored."""

_BLOCK = 128
"""Weights that share one scale: along both sides of a matrix for fp8, along its input for int4."""
_MX_BLOCK = 32
"""Weights that share one scale in mxfp4, along the input."""
_KV_BYTES = {"bf16": 2, "fp8": 1}
MOST_CACHED_TOKENS = 2**36
"""Tokens in a cache beyond which byte counts of the largest models would leave int64."""


@dataclass(frozen=True)
class InferenceSettings:
    """How a model is served. Raises `UsageError` for a dtype or a number that cannot be."""

    weight_dtype: WeightDtype = "bf16"
    """How the weights of the large matrices are stored."""
    kv_dtype: KVDtype = "bf16"
    """How the KV cache is stored."""
    context: int = 8192
    """Tokens of one sequence that the cache has room for."""
    concurrency: int = 1
    """Sequences in the cache at a time."""

    def __post_init__(self) -> None:
        for name, dtypes in (("weight_dtype", get_args(WeightDtype)), ("kv_dtype", get_args(KVDtype))):
            if getattr(self, name) not in dtypes:
                raise UsageError(f"{name} {getattr(self, name)!r} must be one of {', '.join(dtypes)}")
        for name in ("context", "concurrency"):
            _require_positive_int(name, getattr(self, name))
        if self.cached_tokens > MOST_CACHED_TOKENS:
            raise UsageError(
                f"context {self.context} times concurrency {self.concurrency} "
                f"must be at most {MOST_CACHED_TOKENS} tokens"
            )

    @property
    def cached_tokens(self) -> int:
        """Tokens in a full KV cache: context * concurrency."""
        return self.context * self.concurrency


def _require_positive_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} {value!r} must be a whole number of at least 1")


def _ceil_div(a: Size, b: int) -> Size:
    return -(-a // b)


def matrix_bytes(n_in: Size, n_out: Size, dtype: WeightDtype) -> Size:
    """Bytes of one matrix of n_in*n_out weights with its scales; formats and sources are in the module's docstring."""
    size = n_in * n_out
    if dtype == "fp8":
        return size + 4 * _ceil_div(n_in, _BLOCK) * _ceil_div(n_out, _BLOCK)
    if dtype == "int8":
        return size + 2 * n_out
    if dtype == "mxfp4":
        return _ceil_div(size, 2) + _ceil_div(n_in, _MX_BLOCK) * n_out
    if dtype == "int4":
        return _ceil_div(size, 2) + 2 * _ceil_div(n_in, _BLOCK) * n_out
    return 2 * size


def matrices(shape: Shape, experts: Size | None = None) -> list[tuple[str, Size, Size, Size]]:
    """(group, copies in the model, input, output features) of every matrix that a dtype smaller than bf16 applies to.

    `experts` is the number of routed experts a layer, by default all.
    """
    moe_layers = shape.num_moe_layers
    experts = shape.num_experts if experts is None else experts
    ffns = (
        ("routed_experts", moe_layers * experts, shape.d_expert),
        ("shared_experts", moe_layers * shape.num_shared_experts, shape.d_shared_expert),
        *(("dense_ffn", layers, width) for layers, width in counting.dense_ffns(shape)),
        # a width of 0 means that there is no such block, whose empty down map would still have output rows
        ("dense_ffn", moe_layers * (shape.d_dense_residual > 0), shape.d_dense_residual),
    )
    result = [
        ("attention", layers, n_in, n_out)
        for layers, attention in counting.attentions(shape)
        for n_in, n_out in attention.matrices(shape.d_model)
    ]
    blocks = counting.blocks_of(shape)
    for group, copies, width in ffns:
        routed = group == "routed_experts"
        d = counting.expert_width(shape) if routed else shape.d_model
        gated = counting.experts_gated(shape) if routed else blocks.gated
        result += [(group, copies, *matrix) for matrix in counting.ffn_matrices(d, width, gated=gated)]
    if counting.has_latent(shape):
        ways = (shape.d_model, shape.d_latent), (shape.d_latent, shape.d_model)
        result += [("routed_experts", moe_layers, *matrix) for matrix in ways]
    return result


def kv_cache_bytes_per_token(shape: Shape, kv_dtype: KVDtype = "bf16") -> Size:
    """KV cache [bytes/token]: the sum over blocks of `Attention.cached_width` times the bytes of one cached number."""
    return sum(layers * attention.cached_width for layers, attention in counting.caches(shape)) * _KV_BYTES[kv_dtype]


def state_bytes(shape: Shape) -> Size:
    """Bytes that stay for a sequence, however long it is: the sum over blocks of `Attention.state_bytes`."""
    return sum(layers * attention.state_bytes for layers, attention in counting.caches(shape))


def cache_bytes(shape: Shape, context: int, kv_dtype: KVDtype = "bf16") -> Size:
    """KV cache and state of one sequence of `context` tokens [bytes]; windows hold no more than their tokens."""
    numbers = sum(layers * attention.cached_numbers(context) for layers, attention in counting.caches(shape))
    return numbers * _KV_BYTES[kv_dtype] + state_bytes(shape)


def inference_bytes(shape: Shape, settings: InferenceSettings, num_devices: int = 1) -> dict[str, Size]:
    """Bytes on the fullest of `num_devices` equal devices, by group of `counting.GROUPS` and for the "kv_cache".

    Routed experts are spread whole (expert parallelism, ceil(E/n) a device). Heads, KV heads (replicated where there
    are more devices than KV heads), feed-forward widths and rows of embedding and head are split within each matrix
    (tensor parallelism, ceil(size/n) a device). Norms and router are on every device, and so is what
    `Attention.on_device` leaves whole. On one device this is the whole model.
    """
    _require_positive_int("num_devices", num_devices)
    local, experts = _fullest_device(shape, num_devices), _ceil_div(shape.num_experts, num_devices)
    result = {group: 2 * params for group, params in counting.params_by_group(local, experts).items()}
    if settings.weight_dtype != "bf16":
        for group, copies, n_in, n_out in matrices(local, experts):
            if settings.weight_dtype == "mxfp4" and group != "routed_experts":
                continue
            saved = 2 * n_in * n_out - matrix_bytes(n_in, n_out, settings.weight_dtype)
            result[group] = result[group] - copies * saved
    result["kv_cache"] = cache_bytes(local, settings.context, settings.kv_dtype) * settings.concurrency
    return result


def total_inference_bytes(shape: Shape, settings: InferenceSettings, num_devices: int = 1) -> Size:
    """Bytes on the fullest of `num_devices` equal devices: the sum of `inference_bytes`."""
    if settings.weight_dtype != "bf16":
        return sum(inference_bytes(shape, settings, num_devices).values())
    # The same without a product for each group, which the search makes of every design.
    _require_positive_int("num_devices", num_devices)
    local, experts = _fullest_device(shape, num_devices), _ceil_div(shape.num_experts, num_devices)
    cache = cache_bytes(local, settings.context, settings.kv_dtype) * settings.concurrency
    return 2 * sum(counting.params_by_group(local, experts).values()) + cache


def _fullest_device(shape: Shape, n: int) -> Shape:
    """What tensor parallelism over `n` devices leaves of `shape` on the fullest one; routed experts are untouched."""
    split = ("d_shared_expert", "d_dense_residual", "vocab_size")
    dense_ffns = [(layers, _ceil_div(width, n)) for layers, width in counting.dense_ffns(shape)]
    attentions = [(layers, attention.on_device(n)) for layers, attention in counting.attentions(shape)]
    changed = {name: _ceil_div(getattr(shape, name), n) for name in split}
    return counting.Changed(shape, attentions=attentions, dense_ffns=dense_ffns, **changed)
