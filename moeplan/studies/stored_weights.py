"""What the weight files of a model hold, and where a count by its config.json differs: `stored_weights("my/model")`.

Headers and indexes are read, weights never are. Params of the files are exact; the config's are compared group by
group, a group being told from the names of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moeplan import records
from moeplan.architecture.counting import GROUPS
from moeplan.architecture.hf.safetensors import INDEX, Index, Tensor, params_by_group, params_of, read_weights
from moeplan.errors import UsageError
from moeplan.plan.existing import ExistingModel, read_model

SCHEMA = "moeplan.weights/1"
_PACKED = {"int4": 4, "mxfp4": 4, "int8": 8, "fp8": 8}
"""Bits of one param in tensors of whole numbers, by the dtype that a config says."""
_BYTES = {"BF16": 2, "F16": 2, "F32": 4}


@dataclass(frozen=True)
class StoredGroup:
    """One group of params."""

    group: str
    """Its name: a group of an architecture, or "mtp" (multi-token-prediction layers), "towers" or "other"."""
    stored: int
    """Params that the files hold."""
    counted: int | None
    """Params by the config; null where there is none, where it does not say, and for groups that no total includes."""


@dataclass(frozen=True)
class StoredWeights(records.Record):
    """The weight files of one model in numbers."""

    schema: str
    """Version of this structure, moeplan.weights/1."""
    name: str
    """The file or folder."""
    source: str
    """What it was read from: headers, or index where the files are not there."""
    files: int
    """Weight files."""
    tensors: int
    """Tensors in them."""
    stored_bytes: int | None
    """Bytes of all tensors; null if an index does not say."""
    total_params: int | None
    """Params, those of other towers and multi-token prediction included; null if they cannot be known."""
    elements_by_dtype: dict[str, int]
    """Elements of all tensors by dtype, scales and buffers included."""
    groups: tuple[StoredGroup, ...]
    """Params by group; empty for an index."""
    counted_params: int | None
    """N by the config.json beside; null without one."""
    remarks: tuple[str, ...]
    """What else is known, and what is not."""

    @property
    def differing(self) -> tuple[StoredGroup, ...]:
        """Groups whose params the config counts otherwise."""
        return tuple(group for group in self.groups if group.counted not in (None, group.stored))


def stored_weights(source: str | Path) -> StoredWeights:
    """What a weight file, an index or a folder holds; raises `UsageError` for files that are damaged."""
    path = Path(source)
    model, remarks = _config_beside(path)
    bits = _PACKED.get(model.weight_dtype or "") if model else None
    read = read_weights(path)
    if isinstance(read, Index):
        return _of_index(path, read, model, remarks)
    found = read
    if model is not None and not model.architecture.router_correction_bias:
        found, buffers = [t for t in found if not t.is_correction], sum(t.elements for t in found if t.is_correction)
        if buffers:
            remarks.append(f"{buffers:,} elements are biases that balance the load of experts, which are no params.")
    packed = sorted({tensor.dtype for tensor in found if tensor.is_packed})
    if packed and bits is None:
        remarks.append(
            f"Tensors of {', '.join(packed)} hold several params in one element, and no config.json says how many: "
            "there is no total."
        )
    scales = sum(tensor.elements for tensor in found if not tensor.is_weight)
    if scales:
        remarks.append(f"{scales:,} elements are scales of quantized weights or buffers, which are no params.")
    elements: dict[str, int] = {}
    for tensor in read:
        elements[tensor.dtype] = elements.get(tensor.dtype, 0) + tensor.elements
    return StoredWeights(
        schema=SCHEMA,
        name=str(source),
        source="headers",
        files=_number_of_files(path),
        tensors=len(read),
        stored_bytes=sum(tensor.bytes for tensor in read),
        total_params=None if packed and bits is None else sum(params_of(t, bits) for t in found if t.is_weight),
        elements_by_dtype=elements,
        groups=() if packed and bits is None else _groups(found, model, bits),
        counted_params=_total(model),
        remarks=tuple(remarks),
    )


def _config_beside(path: Path) -> tuple[ExistingModel | None, list[str]]:
    """The model of the config.json beside, and what there is to say about it."""
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        return None, []
    try:
        model = read_model(folder / "config.json")
    except UsageError as error:
        return None, [f"The config.json beside cannot be compared: {error}."]
    missing = [gap.what for gap in model.gaps if gap.groups]
    return model, [f"The config.json beside is not counted in full: {what}." for what in missing]


def _number_of_files(path: Path) -> int:
    if not path.is_dir():
        path = path.parent if path.name.endswith(".json") else path
    return len(list(path.glob("*.safetensors"))) if path.is_dir() else 1


def _unknown(model: ExistingModel) -> set[str]:
    return {group for gap in model.gaps for group in gap.groups}


def _total(model: ExistingModel | None) -> int | None:
    return model.architecture.total_params() if model is not None and not _unknown(model) else None


def _groups(tensors: list[Tensor], model: ExistingModel | None, bits: int | None) -> tuple[StoredGroup, ...]:
    layers = _stored_layers(model)
    stored = params_by_group(tensors, layers, bits)
    counted = model.architecture.params_by_group() if model is not None else {}
    unknown = _unknown(model) if model is not None else set(GROUPS)
    names = [*GROUPS, *sorted(set(stored) - set(GROUPS))]
    return tuple(
        StoredGroup(name, stored.get(name, 0), counted.get(name) if name not in unknown else None)
        for name in names
        if stored.get(name) or counted.get(name)
    )


def _stored_layers(model: ExistingModel | None) -> int | None:
    """Layers as files number them; a model of paired blocks has two in each."""
    if model is None:
        return None
    number = model.architecture.num_layers
    return number // 2 if model.model_type == "longcat_flash" else number


def _of_index(path: Path, index: Index, model: ExistingModel | None, remarks: list[str]) -> StoredWeights:
    """What an index says: names, bytes, and params if it does or the dtype is known."""
    params, counted = index.params, _total(model)
    if params is None:
        remarks.append("The index has names and bytes alone: params need the files, or the dtype of all of them.")
        if index.bytes is not None:
            halves = ", ".join(f"{index.bytes // size:,} in {dtype}" for dtype, size in _BYTES.items() if size != 2)
            remarks.append(f"Its bytes are {index.bytes // 2:,} params in BF16 or F16, {halves}.")
    if counted is not None and index.bytes is not None:
        remarks.append(
            f"The config.json beside counts {counted:,} params, {index.bytes / counted:.4g} bytes of the files each."
        )
    return StoredWeights(
        schema=SCHEMA,
        name=str(path / INDEX if path.is_dir() else path),
        source="index",
        files=index.files,
        tensors=len(index.names),
        stored_bytes=index.bytes,
        total_params=params,
        elements_by_dtype={},
        groups=(),
        counted_params=counted,
        remarks=tuple(remarks),
    )
