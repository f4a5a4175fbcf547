"""What the weight files of a model hold, by the headers of its *.safetensors or by their index: nothing is loaded.

A file begins with the length of its header (8 bytes, little-endian), then JSON: for every tensor its dtype, shape and
place in the rest of the file (the format of huggingface/safetensors, README). All of it is checked before it is used.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeplan.errors import UsageError
from moeplan.files import open_source, read_json

LONGEST_HEADER = 100_000_000
"""Bytes of a header at most, as the format has it."""
MOST_HEADERS = 4 * LONGEST_HEADER
"""Bytes of the headers of one model at most."""
MOST_FILES = 10_000
"""Files of one model at most."""
LARGEST_INDEX = 200_000_000
"""Bytes of an index at most."""
INDEX = "model.safetensors.index.json"
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F16": 16, "BF16": 16, "F32": 32,
    "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element, by the format's names of dtypes."""
_SCALES = re.compile(r".*(scale|scales|scale_inv|scale_2|zero_point|qzeros|g_idx|weight_shape|absmax|quant_map|zeros)")
_BUFFERS = re.compile(r".*(inv_freq|position_ids|tid2eid|rotary_emb\..*)")


@dataclass(frozen=True)
class Tensor:
    """One tensor as a header describes it."""

    name: str
    """Its name."""
    dtype: str
    """Its dtype."""
    elements: int
    """Its elements."""

    @property
    def bytes(self) -> int:
        """Bytes that it takes."""
        return -(-self.elements * BITS[self.dtype] // 8)

    @property
    def is_weight(self) -> bool:
        """Whether it is part of a model's params: no scale of a quantizer, no buffer."""
        return not _SCALES.fullmatch(self.name) and not _BUFFERS.fullmatch(self.name)

    @property
    def is_correction(self) -> bool:
        """Whether it is a bias that balances the load of experts: a buffer in most models."""
        return self.name.endswith(("e_score_correction_bias", "expert_bias", "balancing_biases"))

    @property
    def is_packed(self) -> bool:
        """Whether it is a weight whose elements are whole numbers, which quantizers pack params into."""
        return self.is_weight and self.dtype[0] in "IU"


def has_weights(path: Path) -> bool:
    """Whether a path is a weight file, an index of them, or a folder with either."""
    if path.is_dir():
        return bool(_files_of(path)) or (path / INDEX).is_file()
    return path.name.endswith((".safetensors", ".safetensors.index.json"))


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(".safetensors"))


@dataclass(frozen=True)
class Index:
    """What an index says of weight files that are not there."""

    names: tuple[str, ...]
    """Tensors."""
    files: int
    """Files that hold them."""
    bytes: int | None
    """Their bytes; None if the index does not say."""
    params: int | None
    """Their params; None if the index does not say."""


def read_weights(path: Path) -> list[Tensor] | Index:
    """Every tensor of a file, of a folder's files or of the files that an index names; the index where they are absent.

    Raises `UsageError` naming the file for one that is damaged, missing beside others, or beyond all bounds.
    """
    if path.is_dir():
        files, index = _files_of(path), path / INDEX
        if not files and index.is_file():
            return _read_index(index)
        return _read_files(files)
    if path.name.endswith(".json"):
        found = _read_index(path)
        beside = [path.parent / name for name in _named_files(path)]
        there = [file for file in beside if file.is_file()]
        if not there:
            return found
        if len(there) < len(beside):
            absent = next(file.name for file in beside if not file.is_file())
            raise UsageError(f"{path}: names {absent}, which is not beside it, though others are")
        return _read_files(there)
    return _read_files([path])


def _read_files(files: list[Path]) -> list[Tensor]:
    if len(files) > MOST_FILES:
        raise UsageError(f"{files[0].parent}: has {len(files)} weight files; at most {MOST_FILES} are read")
    found: dict[str, Tensor] = {}
    read = 0
    for path in files:
        header, rest = _header(path, MOST_HEADERS - read)
        read += len(header)
        for tensor in _tensors(path, header, rest):
            if tensor.name in found:
                raise UsageError(f"{path}: has the tensor {tensor.name!r:.80}, which another file has too")
            found[tensor.name] = tensor
    return list(found.values())


def _header(path: Path, most: int) -> tuple[bytes, int]:
    """The header of a file, and how many bytes follow it."""
    try:
        with open_source(path) as file:
            size = path.stat().st_size
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if len(first) < 8 or length < 2:
                raise UsageError(f"{path}: is no safetensors file: it has no header")
            if length > LONGEST_HEADER:
                raise UsageError(f"{path}: says its header has {length} bytes; at most {LONGEST_HEADER} are allowed")
            if length > size - 8:
                raise UsageError(f"{path}: says its header has {length} bytes, but {max(size - 8, 0)} follow")
            if length > most:
                raise UsageError(
                    f"{path}: the headers of its model are over {MOST_HEADERS / 1e6:g} MB; none are so long"
                )
            return file.read(length), size - 8 - length
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise UsageError("its header has a key twice")
    return data


def _tensors(path: Path, header: bytes, rest: int) -> Iterator[Tensor]:
    """The tensors of a header, in the order of their places, which must cover the `rest` of the file once."""
    try:
        data = json.loads(header.decode("utf-8"), object_pairs_hook=_once)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path}: its header is not JSON") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: its header is no object")
    data.pop("__metadata__", None)
    placed = [_placed(path, name, said) for name, said in data.items()]
    end = 0
    for begin, stop, tensor in sorted(placed, key=lambda item: item[:2]):
        if begin != end:
            what = "overlaps another" if begin < end else "leaves a hole before it"
            raise UsageError(
                f"{path}: the tensor {tensor.name!r:.80} {what} (it begins at {begin}, {end} was expected)"
            )
        end = stop
        yield tensor
    if end != rest:
        raise UsageError(f"{path}: its tensors end at {end}, but {rest} bytes follow the header")


def _placed(path: Path, name: str, said: object) -> tuple[int, int, Tensor]:
    where = f"{path}: the tensor {name!r:.80}"
    if not isinstance(said, Mapping) or not {"dtype", "shape", "data_offsets"} <= set(said):
        raise UsageError(f"{where} lacks a dtype, a shape or its place")
    dtype, shape, place = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise UsageError(f"{where} has the unknown dtype {dtype!r:.40}; known are {', '.join(BITS)}")
    if not isinstance(shape, list) or not all(_is_count(n) for n in shape) or len(shape) > 100:
        raise UsageError(f"{where} has the shape {shape!r:.40}, must be whole numbers of at least 0")
    if not isinstance(place, list) or len(place) != 2 or not all(_is_count(n) for n in place) or place[0] > place[1]:
        raise UsageError(f"{where} has the place {place!r:.40}, must be two offsets in order")
    tensor = Tensor(name, dtype, math.prod(shape))
    if tensor.bytes != place[1] - place[0]:
        raise UsageError(f"{where} takes {tensor.bytes} bytes by its shape, {place[1] - place[0]} by its place")
    return place[0], place[1], tensor


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**63


def _index_map(path: Path) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    data = read_json(path, largest=LARGEST_INDEX, what="index of weights")
    names = data.get("weight_map") if isinstance(data, Mapping) else None
    if not isinstance(names, Mapping) or not names or not all(isinstance(file, str) for file in names.values()):
        raise UsageError(f"{path}: is no index of weights: it has no weight_map from tensors to files")
    said = data.get("metadata")
    return names, said if isinstance(said, Mapping) else {}


def _named_files(path: Path) -> list[str]:
    """The files that an index names, which must lie beside it."""
    files = sorted(set(_index_map(path)[0].values()))
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UsageError(f"{path}: names the file {name!r:.80}, must be a *.safetensors beside it")
    if len(files) > MOST_FILES:
        raise UsageError(f"{path}: names {len(files)} files; at most {MOST_FILES} are read")
    return files


def _read_index(path: Path) -> Index:
    names, said = _index_map(path)
    size, params = said.get("total_size"), said.get("total_parameters")
    return Index(
        tuple(names),
        len(set(names.values())),
        int(size) if isinstance(size, int | float) and _is_count(int(size)) else None,
        params if _is_count(params) else None,
    )


_GROUPS = tuple(
    (re.compile(pattern), group)
    for pattern, group in (
        (r"(^|.*\.)(mtp|eagle|nextn)\w*\..*", "mtp"),
        (r".*(vision|visual|audio|image|mm_proj|multi_modal|talker|code2wav|resampler|aligner|speech).*", "towers"),
        (r".*(hc_head|_hc\.|hyper_connection|residual|embed_norm|(attn|mlp)_sconv|_convolution|_input\.query|"
         r"\.input_hidden).*", "norms"),
        (r".*(embed_tokens|word_embeddings|wte|tok_embeddings|embeddings?)(_\w+)?\.weight",
         "input_embedding"),
        (r".*(lm_head|output_layer|embed_out|unembed)\..*", "output_head"),
        (r".*self_attention\.experts.*", "attention"),
        (r".*shared_?(expert|mlp).*", "shared_experts"),
        (r".*[._](mlp|moe|feed_forward|block_sparse_moe|ffn|mixer)\.(gate\.|router[._]).*|.*\.router\..*|"
         r".*(e_score_correction_bias|expert_bias).*", "router"),
        (r".*experts.*_norm\..*", "norms"),
        (r".*experts.*|.*(pre|post)_expert_proj\..*|.*_latent_proj\..*|.*mlp\.((in|out)put_linear\..*|bias)",
         "routed_experts"),
        (r".*mixer\.(up|down|gate)_proj\..*|.*per_layer_(input_gate|projection|model_projection)\..*", "dense_ffn"),
        (r".*(self_attn|attention|\.attn|linear_attn|mixer|mamba|\.conv)\..*", "attention"),
        (r".*(norm|ln_\w+).*", "norms"),
        (r".*(mlp|feed_forward|ffn|moe).*", "dense_ffn"),
    )
)  # fmt: skip
_LAYER = re.compile(r"(?:^|.*\.)(?:layers|h|blocks)\.(\d+)\..*")


def group_of(name: str, num_layers: int | None = None) -> str:
    """The group of params that a tensor's name speaks of: one of `counting.GROUPS`, "mtp", "towers" or "other".

    Layers beyond `num_layers` are multi-token-prediction layers.
    """
    layer = _LAYER.fullmatch(name)
    if layer and num_layers is not None and int(layer[1]) >= num_layers and "visual" not in name:
        return "mtp"
    return next((group for pattern, group in _GROUPS if pattern.fullmatch(name)), "other")


def params_by_group(tensors: Iterable[Tensor], num_layers: int | None, bits: int | None) -> dict[str, int]:
    """Params by `group_of`; packed elements hold as many params as `bits` go into them."""
    found: dict[str, int] = {}
    for tensor in tensors:
        if tensor.is_weight:
            group = group_of(tensor.name, num_layers)
            found[group] = found.get(group, 0) + params_of(tensor, bits)
    return found


def params_of(tensor: Tensor, bits: int | None) -> int:
    """Params that a tensor holds."""
    return tensor.elements * BITS[tensor.dtype] // bits if tensor.is_packed and bits else tensor.elements
