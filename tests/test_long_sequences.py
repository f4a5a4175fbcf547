"""What designs of attention and experts buy, against arithmetic by hand."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from moeplan.architecture.published import published_models
from moeplan.cli import cli
from moeplan.cost.inference_memory import InferenceSettings
from moeplan.report.mixers import mixed
from moeplan.report.view import View
from moeplan.studies.long_sequences import long_sequences
from tests.published import MODELS


def test_caches_and_rows_of_gpt_oss() -> None:
    """gpt-oss-120b: 18 whole layers and 18 of 128 tokens; a row of 2,880 to 4 experts in 36 layers, four times."""
    found = long_sequences(MODELS["gpt-oss-120b"], InferenceSettings())
    assert [one.cache_bytes for one in found.sequences] == [18 * 2048 * (n + 128) for n in (8192, 131072)]
    assert found.expert_row_bytes == 4 * 36 * 4 * 2880 * 2
    short, long = (one.tokens_per_second for one in found.sequences)
    assert short is not None
    assert long is not None
    assert long < short  # more to read a token


def test_rows_in_a_latent_width_are_as_narrow() -> None:
    """Nemotron 3 Super sends 22 rows of its latent width of 1,024, not of 4,096, in 40 layers."""
    shape = published_models()["Nemotron-3-Super"].architecture
    assert long_sequences(shape, InferenceSettings()).expert_row_bytes == 4 * 40 * 22 * 1024 * 2


def test_a_dense_model_sends_nothing() -> None:
    """Llama 3 has no experts to send rows to."""
    assert long_sequences(MODELS["Llama-3-8B"], InferenceSettings()).expert_row_bytes is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpt-oss-120b", "; 18 of 36 layers over 128 tokens"),
        ("Nemotron-3-Nano", "; 23 of 52 layers Mamba-2, 23 no attention"),
        ("Llama-3-8B", ""),
    ],
)
def test_blocks_in_place_of_full_attention_are_named(name: str, words: str) -> None:
    """The first screen says what most blocks are where they are not full attention."""
    assert mixed(View(published_models()[name].architecture)) == words


def test_inspect_and_compare_say_them() -> None:
    """Both commands have a line at 128k tokens, and their JSON the numbers."""
    said = CliRunner().invoke(cli, ["inspect", "gpt-oss-120b"]).stdout
    assert "At 128k" in said
    assert "18 of 36 layers over 128" in " ".join(said.split())
    whole = json.loads(CliRunner().invoke(cli, ["inspect", "gpt-oss-120b", "--json"]).stdout)
    assert whole["long_sequences"]["sequences"][1]["cache_bytes"] == 18 * 2048 * (131072 + 128)
    beside = ["compare", "gpt-oss-120b", "llama-3-8b", "--tokens", "1T"]
    assert "cache at 128k tokens" in CliRunner().invoke(cli, beside).stdout
    models = json.loads(CliRunner().invoke(cli, [*beside, "--json"]).stdout)["models"]
    assert models[1]["long_sequences"]["sequences"][0]["cache_bytes"] == 32 * 2 * 8 * 128 * 2 * 8192
