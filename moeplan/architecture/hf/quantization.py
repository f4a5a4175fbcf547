"""How the weights of a published file are stored, by its `quantization_config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

StoredDtype = Literal["fp8", "int8", "int4", "mxfp4"]
"""The dtypes that files say and that weights can be counted in."""
_BY_METHOD: dict[str, StoredDtype] = {"fp8": "fp8", "fbgemm_fp8": "fp8", "mxfp4": "mxfp4"}
_BY_BITS: dict[int, StoredDtype] = {4: "int4", 8: "int8"}


def stored_weights(data: Any) -> tuple[StoredDtype | None, tuple[str, ...]]:
    """The dtype that a config says its large matrices are stored in, and a sentence about it; None if it says none."""
    said = data.get("quantization_config", data.get("quantization")) if isinstance(data, Mapping) else None
    if said is None and isinstance(data, Mapping):
        for inner in data.values():
            if isinstance(inner, Mapping) and isinstance(inner.get("quantization_config"), Mapping):
                said = inner["quantization_config"]
                break
    if not isinstance(said, Mapping) or not said:
        return None, ()
    method, bits = str(said.get("quant_method", ""))[:40].lower(), _bits(said)
    dtype = _BY_METHOD.get(method) or _BY_BITS.get(bits)
    what = f"quantization_config says {method or f'{bits} bits'}"
    if dtype is None:
        return None, (f"{what}: its bytes are not known to moeplan; weights are counted as --weights says.",)
    return dtype, (f"{what}: weights are counted as {dtype} unless --weights says otherwise.",)


def _bits(said: Mapping[str, Any]) -> int:
    """Bits of a weight, by the names that quantizers write; 0 if none says them."""
    if said.get("load_in_4bit") is True:
        return 4
    if said.get("load_in_8bit") is True:
        return 8
    for name in ("bits", "num_bits", "w_bit", "wbits"):
        if isinstance(said.get(name), int):
            return int(said[name])
    groups = said.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping) and isinstance(weights.get("num_bits"), int):
            return int(weights["num_bits"])
    return 0
