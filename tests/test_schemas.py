"""Every command's --json is what its JSON Schema says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from moeplan.cli import cli
from moeplan.report.schemas import DOCUMENTS, document_schema
from tests.test_pages import runs_file

BUDGET = ("--flops", "1e18", "--memory", "4GB")
COMMANDS = [
    ("plan", ("recommend", *BUDGET)),
    ("plan", ("recommend", *BUDGET, "--gpus", "8xH100", "--law", "krajewski2024")),
    ("comparison", ("compare", *BUDGET)),
    ("comparison", ("compare", *BUDGET, "--equal", "resources")),
    ("comparison", ("compare", "qwen3-30b-a3b@36T", "deepseek-v3@14.8T")),
    ("frontier", ("frontier", "--flops", "1e18", "--memory", "2GB..8GB", "--points", "2")),
    ("frontier", ("frontier", *BUDGET, "--over", "granularity")),
    ("inspection", ("inspect", "qwen3-30b-a3b")),
    ("inspection", ("inspect", "olmoe-1b-7b-0924", "--tokens", "5T")),
    ("upcycling", ("upcycle", "llama-3-8b", "--flops", "1e21", "--memory", "8x80GB")),
    ("models", ("inspect",)),
    ("fit", ("fit", "RUNS", "--form", "additive_power_law", "--draws", "20")),
    ("laws", ("laws",)),
    ("law", ("laws", "tian2025")),
    ("law", ("laws", "krajewski2024/moe-e16")),
    ("checks", ("laws", "--check")),
    ("hardware", ("hardware",)),
    ("hardware", ("hardware", "H200")),
    ("backtest", ("backtest",)),
]
"""Commands by the kind of JSON that they print, but for `ELSEWHERE`."""
ELSEWHERE = {"labs", "suggestion", "verification", "verification_outline", "proxy_runs", "weights"}
"""Kinds of JSON that take long to make, or files: held to their schemas by the tests that make them."""


@pytest.mark.parametrize("name, words", COMMANDS, ids=lambda value: value if isinstance(value, str) else "")
def test_json_is_what_its_schema_says(tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    """What a command prints passes the schema of its kind, and another kind's schema refuses it."""
    words = tuple(runs_file(tmp_path / "runs.csv") if word == "RUNS" else word for word in words)
    done = CliRunner().invoke(cli, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    data = json.loads(done.stdout)
    jsonschema.validate(data, document_schema(name))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, document_schema("plan" if name != "plan" else "frontier"))


def described(schema: Any) -> bool:
    """Whether every property of a schema has a sentence, and no object takes unknown ones."""
    kinds = schema["$defs"].values()
    properties = [said for kind in kinds for said in kind["properties"].values()]
    return all(said["description"] for said in properties) and not any(kind["additionalProperties"] for kind in kinds)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_schema_is_one(name: str) -> None:
    """`moeplan schema NAME` prints a valid schema with an `$id` of its name and version, every field explained."""
    done = CliRunner().invoke(cli, ["schema", name])
    schema = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == document_schema(name)
    version = 2 if name == "plan" else 1
    assert schema["$id"] == f"https://github.com/moeplan/moeplan/schema/{name}/{version}"
    assert described(schema)


def test_every_kind_is_named_and_tried() -> None:
    """The help names every kind of JSON, one of no such name is refused with those there are, and each one is tried."""
    said = " ".join((cli.commands["schema"].help or "").split())
    assert all(name in said.replace(",", "").replace(".", "").split() for name in DOCUMENTS)
    wrong = CliRunner().invoke(cli, ["schema", "plans"])
    assert wrong.exit_code == 2
    assert "no JSON is called 'plans'; known are plan, comparison" in wrong.stderr
    assert {name for name, _ in COMMANDS} | ELSEWHERE == set(DOCUMENTS)
