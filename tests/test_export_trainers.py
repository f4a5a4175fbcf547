"""Exported files in the trainers' own classes: `pytest -m export`.

Needs the extra `export-test`, and torchtitan installed beside it without its dependencies (see CONTRIBUTING.md).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.plan.export import export
from moeplan.plan.export.job import job_of_plan
from moeplan.plan.export.recipe import decay_share, recipe, setting
from tests.exported import SHAPES, TINY, plan_of

pytestmark = [pytest.mark.export]
CASES: list[tuple[str, Architecture, Layout | None]] = [
    ("none", TINY, None),
    ("spread", SHAPES["gqa-1024"], Layout(tp=2, pp=2, ep=8, dp=8)),
    ("uneven", SHAPES["gqa-1024"], Layout(pp=5, ep=8, dp=8, recompute="full")),
    ("virtual", SHAPES["gqa-two-shared-512"], Layout(pp=2, virtual_stages=2, ep=8, dp=8, micro_batch=2)),
    ("latent", SHAPES["mla-1024"], Layout(dp=16, ep=8, recompute="selective")),
    ("latent in stages", SHAPES["mla-2048"], Layout(pp=4, ep=8, dp=8)),
    ("two shared", SHAPES["gqa-two-shared-1024"], Layout(pp=2, dp=4)),
    ("dense", SHAPES["dense-1024"], Layout(tp=2, pp=2, dp=4)),
]
"""Shapes and layouts: grouped and latent attention, dense, stages alike, unequal and virtual, each recomputation."""


def read(target: str, folder: Path, suffix: str) -> list[dict[str, Any]]:
    """What the trainer's classes make of each case's file."""
    files = []
    for i, (_, shape, layout) in enumerate(CASES):
        path = folder / f"plan{i}{suffix}"
        path.write_text(export(plan_of(shape), target, layout=layout), encoding="utf-8")
        files.append(str(path))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.trainers", target, *files],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line.removeprefix("READ ")) for line in done.stdout.splitlines() if line.startswith("READ ")]


def scale(shape: Architecture) -> float:
    """sqrt(k)."""
    return float(shape.num_active_experts**0.5)


def test_torchtitan_starts_the_plans_run(tmp_path: Path) -> None:
    """torchtitan's own loader finds the function; model, batch, stages, schedule and optimizer are the plan's.

    The local batch holds every micro-batch of a pipeline, and times replicas divides the global one.
    """
    pytest.importorskip("torchtitan", reason="torchtitan is not installed")
    for (name, shape, layout), found in zip(CASES, read("torchtitan", tmp_path, ".py"), strict=True):
        chosen, given = recipe(job_of_plan(plan_of(shape)), layout), layout or Layout()
        assert found["params"] == shape.total_params(), name
        training, spread = found["training"], found["parallelism"]
        assert (training["global_batch_size"], training["steps"]) == (chosen.batch, chosen.steps)
        assert training["seq_len"] == chosen.seq_len
        rounds, left = divmod(chosen.batch, training["local_batch_size"] * given.dp)
        assert left == 0
        if given.pp > 1:
            assert rounds == 1
            assert training["local_batch_size"] % spread["pipeline_parallel_microbatch_size"] == 0
            parts = spread["module_fqns_per_model_part"]
            layers = [module for part in parts for module in part if module.startswith("layers.")]
            assert layers == [f"layers.{i}" for i in range(shape.num_layers)]
            assert [sum(m.startswith("layers.") for m in part) for part in parts] == [*given.chunks(shape.num_layers)]
        degrees = {"tensor": given.tp, "context": given.cp, "pipeline": given.pp, "expert": given.ep}
        assert {kind: spread[f"{kind}_parallel_degree"] for kind in degrees} == degrees
        assert spread["data_parallel_shard_degree"] == given.dp
        assert found["optimizer"] == {
            "lr": chosen.learning_rate, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1,
        }  # fmt: skip
        schedule = found["lr_scheduler"]
        assert (schedule["warmup_steps"], schedule["decay_ratio"]) == (chosen.warmup_steps, decay_share())
        assert schedule["min_lr_factor"] == setting("least learning rate")
        policy = {"none": "NoneType", "selective": "SelectiveAC", "full": "FullAC"}[given.recompute]
        assert found["activation_checkpoint"] == policy
        if shape.num_experts:
            assert found["route_scale"] == [pytest.approx(scale(shape), rel=1e-5)]


def test_megatron_core_builds_the_plans_model(tmp_path: Path) -> None:
    """megatron-core's GPTModel of the arguments has the plan's params; stages hold all layers; nothing drops out.

    Latent attention is built by Transformer Engine alone; of it the config is made.
    """
    pytest.importorskip("megatron.core", reason="megatron-core is not installed")
    for (name, shape, layout), found in zip(CASES, read("megatron", tmp_path, ".args"), strict=True):
        chosen, given = recipe(job_of_plan(plan_of(shape)), layout), layout or Layout()
        assert found["params"] == (None if shape.attention == "mla" else shape.total_params()), name
        assert (found["hidden_dropout"], found["attention_dropout"]) == (0, 0)
        assert found["optimizer"] == {
            "lr": chosen.learning_rate, "min_lr": chosen.least_learning_rate, "adam_beta1": 0.9, "adam_beta2": 0.95,
            "adam_eps": 1e-8, "weight_decay": 0.1, "clip_grad": 1.0,
        }  # fmt: skip
        assert found["precision"] == ["hybrid", "tensorwise"]  # the sample's fp8
        assert found["split"]["tensor_model_parallel_size"] == given.tp
        assert chosen.batch % (given.dp * given.micro_batch) == 0
        if found["stages"] is not None:
            assert sum(found["stages"]) == shape.num_layers
        if shape.num_experts:
            assert found["scale"] == pytest.approx(scale(shape), rel=1e-5)


def test_deepspeed_reads_the_plans_run(tmp_path: Path) -> None:
    """DeepSpeed's config has the plan's batch, AdamW and schedule, in the stage of ZeRO that memory is counted for."""
    pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    alone = [(name, shape, None) for name, shape, _ in CASES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "CASES", alone)
        everything = read("deepspeed", tmp_path, ".json")
    for (_, shape, _), found in zip(CASES, everything, strict=True):
        chosen = recipe(job_of_plan(plan_of(shape)))
        assert (found["batch"], found["micro_batch"], found["stage"], found["bf16"]) == (chosen.batch, 1, 1, True)
        assert found["optimizer"]["lr"] == chosen.learning_rate
        assert found["optimizer"]["betas"] == [0.9, 0.95]
        assert found["schedule"]["total_num_steps"] == chosen.steps
        assert found["schedule"]["warmup_num_steps"] == chosen.warmup_steps
        assert found["clip"] == 1.0
