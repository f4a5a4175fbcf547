"""Weight files by their headers: exact totals, what the config counts otherwise, and one sentence for hostile files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from moeplan.architecture.hf.safetensors import LONGEST_HEADER, group_of
from moeplan.cli import cli
from moeplan.errors import UsageError
from moeplan.report.schemas import document_schema
from moeplan.studies.inspection import inspect
from moeplan.studies.stored_weights import stored_weights

CONFIG = {
    "model_type": "qwen3_moe", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 10, "num_experts": 2, "num_experts_per_tok": 1,
    "moe_intermediate_size": 3, "intermediate_size": 6, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
EXPERTS = {
    f"model.layers.0.mlp.experts.{i}.{name}_proj.weight": shape
    for i in range(2)
    for name, shape in {"gate": [3, 8], "up": [3, 8], "down": [8, 3]}.items()
}
TENSORS: dict[str, list[int]] = {
    "model.embed_tokens.weight": [10, 8], "lm_head.weight": [10, 8], "model.norm.weight": [8],
    "model.layers.0.input_layernorm.weight": [8], "model.layers.0.post_attention_layernorm.weight": [8],
    "model.layers.0.self_attn.q_proj.weight": [8, 8], "model.layers.0.self_attn.k_proj.weight": [4, 8],
    "model.layers.0.self_attn.v_proj.weight": [4, 8], "model.layers.0.self_attn.o_proj.weight": [8, 8],
    "model.layers.0.self_attn.q_norm.weight": [4], "model.layers.0.self_attn.k_norm.weight": [4],
    "model.layers.0.mlp.gate.weight": [2, 8], **EXPERTS,
}  # fmt: skip
"""A whole model of CONFIG, as the real class names its tensors."""
SIZE = {"BF16": 2, "F32": 4, "I32": 4, "U8": 1, "F8_E4M3": 1}


def header(tensors: dict[str, list[int]], dtype: str = "BF16") -> dict[str, Any]:
    """A header that places tensors one after the other."""
    found, at = {}, 0
    for name, shape in tensors.items():
        size = SIZE[dtype]
        for n in shape:
            size *= n
        found[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return found


def write(path: Path, said: dict[str, Any]) -> Path:
    """A weight file of a header, with zeros for what it speaks of."""
    text = json.dumps({"__metadata__": {"format": "pt"}, **said}).encode()
    end = max((entry["data_offsets"][1] for entry in said.values()), default=0)
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    return path


def test_headers_give_the_exact_total(tmp_path: Path) -> None:
    """Files hold what their shapes say; a config of the same model counts the same in every group."""
    names = list(TENSORS)
    write(tmp_path / "model-00001-of-00002.safetensors", header({name: TENSORS[name] for name in names[:7]}))
    write(tmp_path / "model-00002-of-00002.safetensors", header({name: TENSORS[name] for name in names[7:]}))
    alone = stored_weights(tmp_path)
    assert (alone.source, alone.files, alone.tensors, alone.counted_params) == ("headers", 2, 18, None)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    found = inspect(tmp_path)
    assert found.total_params is not None
    assert found.stored is not None
    total = found.total_params["with_embeddings"]
    assert alone.total_params == found.stored.total_params == found.stored.counted_params == total
    assert found.stored.differing == ()
    assert alone.stored_bytes == 2 * total


def test_what_the_config_counts_otherwise_is_named(tmp_path: Path) -> None:
    """A wider expert in the files than in the config shows in its group alone; extra layers are prediction layers."""
    more = {"model.layers.0.mlp.experts.0.down_proj.weight": [8, 5], "model.layers.1.eh_proj.weight": [8, 16]}
    write(tmp_path / "model.safetensors", header(TENSORS | more))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    found = stored_weights(tmp_path)
    assert [(group.group, group.stored - (group.counted or 0)) for group in found.differing] == [("routed_experts", 16)]
    assert {group.group: group.stored for group in found.groups}["mtp"] == 128
    result = CliRunner().invoke(cli, ["inspect", str(tmp_path), "--full"])
    assert result.exit_code == 0
    assert "config.json counts otherwise: routed_experts." in result.output


def test_packed_weights_need_to_be_told(tmp_path: Path) -> None:
    """Whole numbers pack several params; the config's quantization says how many, else there is no total."""
    write(tmp_path / "model.safetensors", header({"model.layers.0.mlp.down_proj.qweight": [4, 4]}, "I32"))
    assert stored_weights(tmp_path).total_params is None
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": {"bits": 4}}))
    assert stored_weights(tmp_path).total_params == 4 * 4 * 8


def test_scales_are_no_params(tmp_path: Path) -> None:
    """Scales of quantized weights stand beside the params, not among them."""
    said = header({"model.layers.0.mlp.up_proj.weight": [4, 8]}, "F8_E4M3")
    said["model.layers.0.mlp.up_proj.weight_scale_inv"] = {"dtype": "F32", "shape": [1], "data_offsets": [32, 36]}
    found = stored_weights(write(tmp_path / "model.safetensors", said))
    assert (found.total_params, found.stored_bytes) == (32, 36)
    assert "1 elements are scales" in found.remarks[0]


def test_an_index_alone_says_what_it_can(tmp_path: Path) -> None:
    """Without files an index gives names and bytes, with total_parameters the params; with files all is known."""
    path = tmp_path / "model.safetensors.index.json"
    index = {"metadata": {"total_size": 64}, "weight_map": {"a.weight": "model-00001-of-00001.safetensors"}}
    path.write_text(json.dumps(index))
    found = stored_weights(path)
    assert (found.source, found.total_params, found.stored_bytes) == ("index", None, 64)
    assert any("32 params in BF16" in remark for remark in found.remarks)
    path.write_text(json.dumps({**index, "metadata": {"total_size": 64, "total_parameters": 32}}))
    assert stored_weights(path).total_params == 32
    result = CliRunner().invoke(cli, ["inspect", str(path), "--json"])
    assert json.loads(result.output)["total_params"] == 32
    jsonschema.validate(json.loads(result.output), document_schema("weights"))
    write(tmp_path / "model-00001-of-00001.safetensors", header({"a.weight": [4, 8]}))
    assert stored_weights(path).source == "headers"


A: dict[str, Any] = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
HOSTILE = {
    "empty": (b"", "no header"),
    "short": (b"\1\0\0", "no header"),
    "huge length": ((2**63).to_bytes(8, "little") + b"{}", f"at most {LONGEST_HEADER} are allowed"),
    "length beyond the file": ((1000).to_bytes(8, "little") + b"{}", "but 2 follow"),
    "no JSON": ((4).to_bytes(8, "little") + b"{{{{", "is not JSON"),
    "no object": ((2).to_bytes(8, "little") + b"[]", "is no object"),
    "nested": ((100_000).to_bytes(8, "little") + b"[" * 100_000, "is not JSON"),
    "a pickle": (b"\x80\x04\x95\x00\x00\x00\x00\x00rest", "bytes"),
    "a name twice": (
        (lambda text: len(text).to_bytes(8, "little") + text)(b'{"a": {}, "a": {}}'),
        "has a key twice",
    ),
}
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "overlap": ({"a": A, "b": {**A, "data_offsets": [2, 6]}}, "overlaps another"),
    "hole": ({"a": A, "b": {**A, "data_offsets": [8, 12]}}, "leaves a hole"),
    "bytes": ({"a": {**A, "data_offsets": [0, 6]}}, "takes 4 bytes by its shape, 6 by its place"),
    "order": ({"a": {**A, "data_offsets": [4, 0]}}, "must be two offsets in order"),
    "negative": ({"a": {**A, "shape": [-2]}}, "must be whole numbers"),
    "dtype": ({"a": {**A, "dtype": "PICKLE"}}, "unknown dtype 'PICKLE'"),
    "lacks": ({"a": {"dtype": "BF16", "data_offsets": [0, 4]}}, "lacks a dtype, a shape or its place"),
    "enormous": ({"a": {**A, "shape": [2**62, 2**62]}}, "by its shape"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_give_one_sentence(tmp_path: Path, name: str) -> None:
    """A file that is damaged or lies about itself is refused with its name, whatever it says, and nothing is loaded."""
    content, words = HOSTILE[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as error:
        stored_weights(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    result = CliRunner().invoke(cli, ["inspect", str(path)])
    assert result.exit_code == 2


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers_give_one_sentence(tmp_path: Path, name: str) -> None:
    """Tensors must have the bytes that their shape says, one after the other to the end of the file."""
    said, words = BROKEN[name]
    with pytest.raises(UsageError, match=words):
        stored_weights(write(tmp_path / "model.safetensors", said))


@pytest.mark.parametrize("files", [{"a": "../other.safetensors"}, {"a": "/etc/passwd"}, {"a": 3}, {}])
def test_an_index_leads_nowhere_else(tmp_path: Path, files: dict[str, Any]) -> None:
    """An index that names files elsewhere, or none, is refused."""
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    with pytest.raises(UsageError, match=r"names the file|no index of weights"):
        stored_weights(path)


@pytest.mark.parametrize(
    "name, group",
    [
        ("model.layers.3.mlp.experts.gate_up_proj", "routed_experts"),
        ("model.layers.3.mlp.shared_experts.up_proj.weight", "shared_experts"),
        ("model.layers.3.mlp.gate.weight", "router"),
        ("model.layers.3.mlp.gate_proj.weight", "dense_ffn"),
        ("model.layers.3.block_sparse_moe.gate.weight", "router"),
        ("model.layers.3.self_attn.q_a_layernorm.weight", "attention"),
        ("model.layers.61.self_attn.q_proj.weight", "mtp"),
        ("model.visual.blocks.3.attn.qkv.weight", "towers"),
        ("backbone.layers.2.mixer.in_proj.weight", "attention"),
        ("model.language_model.embed_tokens.weight", "input_embedding"),
    ],
)
def test_names_speak_of_groups(name: str, group: str) -> None:
    """Names of tensors in published files fall into the groups that architectures have."""
    assert group_of(name, 61) == group


@pytest.mark.parametrize("asked", [("--tokens", "1T"), ("--memory", "80GB"), ("--context", "8192")])
def test_weight_files_alone_refuse_what_needs_an_architecture(tmp_path: Path, asked: tuple[str, str]) -> None:
    """Headers have no heads and no top-k, so that a question of training or serving is refused, not ignored."""
    write(tmp_path / "model.safetensors", header(TENSORS))
    result = CliRunner().invoke(cli, ["inspect", str(tmp_path), *asked])
    assert result.exit_code == 2
    assert f"{asked[0]} needs the model's config.json beside its weight files" in result.output
