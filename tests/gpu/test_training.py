"""Training proxies on a GPU: the same numbers as on a CPU, captured or not, by every way to multiply experts' rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moeplan.architecture.shape import Architecture
from moeplan.verification.options import Where
from moeplan.verification.spec import RunSpec
from tests.tiny import DENSE, MOE, corpus, spec

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]
Note = Callable[[str, object], None]
SHAPES = pytest.mark.parametrize("architecture", [DENSE, MOE], ids=["dense", "moe"])
BOTH = pytest.mark.parametrize("precision", ["fp32", "bf16"])


def trainer(asked: RunSpec, device: str) -> Any:
    """A trainer of a spec."""
    import torch

    from moeplan.verification.train import Trainer

    return Trainer(asked, corpus(), torch.device(device), asked.learning_rate)


def asked(architecture: Architecture, **changes: Any) -> RunSpec:
    """A run of some 60 steps over the small language."""
    return spec(corpus(), architecture, **{"steps": 60, "batch_sequences": 8, **changes})


def losses(made: Any, steps: int) -> list[float]:
    """Losses of the first steps."""
    for _ in range(steps):
        made.step()
    return [float(x) for x in made.losses[:steps]]


@SHAPES
def test_a_step_is_the_same_on_both_devices(architecture: Architecture, record_property: Note) -> None:
    """In fp32 six steps give the CPU's losses to 1e-4, the same load and params to a few rounding errors of a step."""
    import torch

    here, there = (trainer(asked(architecture), device) for device in ("cpu", "cuda"))
    expected, found = losses(here, 6), losses(there, 6)
    apart = max(abs(a - b) / b for a, b in zip(found, expected, strict=True))
    moved = float((there.flat.master.cpu() - here.flat.master).abs().max())
    record_property(f"fp32 losses, CPU against GPU, {architecture.num_experts} experts", apart)
    assert apart < 1e-4
    assert moved < 6 * 0.02 * asked(architecture).learning_rate * 10
    if architecture.num_experts:
        assert torch.equal(there.load_LE.sum(dim=1).cpu(), here.load_LE.sum(dim=1))


@SHAPES
@BOTH
def test_captured_steps_repeat_eager_ones(architecture: Architecture, precision: str, record_property: Note) -> None:
    """The step is captured in either type, and 40 captured steps give the losses of 40 eager ones to 1 %."""
    from moeplan.verification.capture import fastest_step

    made, eager = (trainer(asked(architecture, precision=precision), "cuda") for _ in range(2))
    step, execution = fastest_step(made)
    assert execution == "graph"
    for _ in range(40):
        step()
    expected = losses(eager, 40)
    apart = max(abs(float(a) - b) / b for a, b in zip(made.losses[:40], expected, strict=True))
    record_property(f"{precision} losses, captured against eager, {architecture.num_experts} experts", apart)
    assert apart < 1e-2


@SHAPES
def test_low_precision_learns_alike(architecture: Architecture, record_property: Note) -> None:
    """Trained in bf16 a run ends within .05 nats of the same run in fp32."""
    from moeplan.verification.train import run

    found = {p: run(asked(architecture, steps=200, precision=p), corpus(), device="cuda") for p in ("fp32", "bf16")}
    assert all((r.status, r.execution) == ("finished", "graph") for r in found.values())
    apart = found["bf16"].loss - found["fp32"].loss
    record_property(f"bf16 loss - fp32 loss, {architecture.num_experts} experts [nats]", apart)
    assert abs(apart) < 0.05


def test_cpu_and_gpu_validate_alike() -> None:
    """A run on the GPU ends within .03 nats of that on the CPU: same data, same start, same validation documents."""
    from moeplan.verification.train import run

    here, there = (run(asked(MOE, steps=60), corpus(), device=device) for device in ("cpu", "cuda"))
    assert here.document_tokens == there.document_tokens
    assert abs(here.loss - there.loss) < 0.03


@pytest.mark.parametrize("path", ["grouped_mm", "blocks"])
def test_experts_by_every_path(path: str, monkeypatch: pytest.MonkeyPatch, record_property: Note) -> None:
    """In bf16 outputs and gradients are within 3 % of the exact layer, by a grouped kernel (where there is one) and by
    blocks; experts that no token reaches get a gradient of zero."""
    import torch

    from moeplan.verification import experts
    from moeplan.verification.model import MoE

    if path == "blocks":
        monkeypatch.setattr(experts, "GROUPING_GPUS", ())
    elif torch.cuda.get_device_capability() not in experts.GROUPING_GPUS:
        pytest.skip("no grouped kernel for this GPU")
    shape = Architecture(
        d_model=128, num_layers=1, vocab_size=256, num_heads=2, head_dim=16, num_experts=64, num_active_experts=4,
        d_expert=64, num_shared_experts=1, qk_norm="head",
    )  # fmt: skip
    exact = MoE(shape)
    with torch.no_grad():
        for p in exact.parameters():
            p.normal_(0.0, p.shape[-2 if p.ndim == 3 else -1] ** -0.5)
    exact.bias_E[7] = -10.0  # never reached
    low = MoE(shape)
    low.load_state_dict(exact.state_dict())
    low = low.cuda()
    for owner in (low, low.shared):
        for name in ("w_in", "w_out"):
            setattr(owner, name, torch.nn.Parameter(getattr(owner, name).detach().bfloat16()))
    assert experts.product_path(low.w_in) == path
    exact = exact.double()
    x = torch.randn(1000, 128)
    upstream = torch.randn(1000, 128)
    x_low, x_exact = x.cuda().requires_grad_(), x.double().requires_grad_()
    got, wanted = low(x_low), exact(x_exact)
    mine = torch.autograd.grad(got, [x_low, *low.parameters()], upstream.cuda().to(got.dtype))
    theirs = torch.autograd.grad(wanted, [x_exact, *exact.parameters()], upstream.double())
    apart = [
        float(((a.cpu().double() - b).norm() / b.norm()).detach())
        for a, b in zip((got, *mine), (wanted, *theirs), strict=True)
    ]
    record_property(f"bf16 layer by {path} against fp64", max(apart))
    assert max(apart) < 0.03
    unreached = [g for g, p in zip(mine[1:], low.parameters(), strict=True) if p.ndim == 3]
    assert all(not g[7].any() for g in unreached)


def test_a_capture_that_fails_is_told_and_tried_no_more() -> None:
    """Where a step reads a number back, it is trained eagerly, every result says why, and losses are right."""
    code = """
import json, torch
from moeplan.verification import experts, model
from tests.gpu.test_training import asked, losses, trainer
from tests.tiny import MOE
from moeplan.verification.capture import fastest_step
expected = losses(trainer(asked(MOE), "cuda"), 10)
model.in_blocks = lambda w: False
experts.groupable = lambda w: False
told = []
for _ in range(2):
    made = trainer(asked(MOE), "cuda")
    step, execution = fastest_step(made)
    told.append(execution)
    for _ in range(10):
        step()
    apart = max(abs(float(a) - b) / b for a, b in zip(made.losses[:10], expected))
print(json.dumps([told, apart]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told, apart = json.loads(done.stdout.splitlines()[-1])
    assert all(each.startswith("eager: the step could not be captured: ") for each in told)
    assert apart < 1e-3


def test_runs_of_the_local_engine(tmp_path: Path, record_property: Note) -> None:
    """Two workers share the GPU; their runs are graphs, MFU is of a peak measured before they start, and the process
    that asks touches no GPU."""
    code = """
import dataclasses, json, sys
from pathlib import Path
import torch
from moeplan.verification.data import load_corpus
from moeplan.verification.ladder import Data, Settings, make_ladder
from moeplan.verification.launch import launch
from moeplan.verification.machine import probe_machine
from moeplan.verification.options import Where
from tests.verify_cases import PLANNED, text_file
folder = Path(sys.argv[1])
corpus = load_corpus(text_file(folder, 3.0))
data = Data(corpus.name, corpus.digest, corpus.vocab_size, len(corpus.tokens))
ladder = make_ladder(PLANNED, 1e12, Settings("bf16", 1, False), data.vocab_size)
specs = [dataclasses.replace(s, steps=300) for s in ladder.tuning(data)][1:5]
where = Where()
machine = probe_machine(where, folder)
found = launch(specs, folder / "runs", where, lambda e: None)
print(json.dumps({"executions": [r.execution for r in found], "mfu": [r.mfu for r in found],
  "seconds": [r.seconds for r in found], "forecast": [machine.seconds(s) for s in specs],
  "touched": torch.cuda.is_initialized(), "device": machine.device, "precision": machine.precision}))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    record_property("four runs by the local engine", told)
    assert told["executions"] == ["graph"] * 4
    assert all(0 < mfu < 1 for mfu in told["mfu"])
    assert not told["touched"]
    assert told["precision"] == "bf16"
    assert Where().engine == "local"
