"""Training of proxies: repeatable, able to learn, honest about divergence. Needs torch: `pytest -m verify`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra verify is not installed")

from moeplan import records  # noqa: E402
from moeplan.errors import UsageError  # noqa: E402
from moeplan.verification import results  # noqa: E402
from moeplan.verification.data import Corpus  # noqa: E402
from moeplan.verification.model import Model  # noqa: E402
from moeplan.verification.probe import probe  # noqa: E402
from moeplan.verification.spec import RunResult, RunSpec  # noqa: E402
from moeplan.verification.train import Flat, Trainer, diverged, run  # noqa: E402
from moeplan.verification.tuning import transfer_learning_rate  # noqa: E402
from tests.tiny import DENSE, MOE, corpus, spec  # noqa: E402

pytestmark = pytest.mark.verify

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def data() -> Corpus:
    """The small language."""
    return corpus()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """As in a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("architecture", [DENSE, MOE], ids=["dense", "moe"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_runs_of_a_spec_are_equal_bit_for_bit(architecture: Any, precision: str, data: Corpus) -> None:
    """Apart from its timings a result repeats exactly, whatever is drawn in between; another seed gives another."""
    asked = spec(data, architecture, precision=precision)
    first = run(asked, data, device="cpu")
    torch.rand(7)
    again, other = run(asked, data, device="cpu"), run(replace(asked, seed=2), data, device="cpu")
    assert results.without_timings(again) == results.without_timings(first)
    assert first.status == "finished"
    assert other.loss != first.loss
    assert first.loss < np.log(256) - 1.5


def test_loss_is_the_mean_over_validation_documents(data: Corpus) -> None:
    """Summed losses and tokens of the documents give the loss; a document has all tokens but its first."""
    found = run(spec(data, DENSE, steps=2), data, device="cpu")
    parts = data.validation(4000)
    assert found.document_tokens == tuple(len(part) - 1 for part in parts)
    assert found.loss == pytest.approx(sum(found.document_losses) / sum(found.document_tokens))
    assert sum(found.document_tokens) >= 4000 - len(parts)
    trainer = Trainer(found.spec, data, torch.device("cpu"), 0.0)
    for part, summed in zip(parts[:3], trainer.validate(parts), strict=False):
        total = 0.0
        for start in range(0, len(part) - 1, 64):
            ids = torch.from_numpy(part[start : start + 65].astype(np.int64))[None]
            total += trainer.model(ids[:, :-1], ids[:, 1:]).sum().item()
        assert summed == pytest.approx(total, rel=1e-5)


def test_both_arms_see_the_same_data(data: Corpus) -> None:
    """Dense and MoE of one seed train on the same sequences in the same order."""
    dense, moe = (Trainer(spec(data, shape), data, torch.device("cpu"), 1e-3) for shape in (DENSE, MOE))
    assert torch.equal(dense.data, moe.data)


@pytest.mark.parametrize("architecture", [DENSE, MOE], ids=["dense", "moe"])
def test_one_batch_can_be_learnt_by_heart(architecture: Any, data: Corpus) -> None:
    """On one batch again and again the loss falls below 0.1 nats."""
    asked = spec(data, architecture, batch_sequences=2, steps=150, learning_rate=2e-2, weight_decay=0.0)
    trainer = Trainer(asked, data, torch.device("cpu"), asked.learning_rate)
    trainer.data[:] = trainer.data[0]
    trainer.train(None, None)
    assert float(trainer.losses[-1]) < 0.1
    assert float(trainer.losses[0]) == pytest.approx(np.log(256), rel=1e-5)


def test_frozen_router_keeps_its_start(data: Corpus) -> None:
    """With frozen_router the router's weights are bit for bit those of the start, and everything else is trained."""
    asked = spec(data, frozen_router=True)
    start = {name: p.detach().clone() for name, p in Model(MOE, 64, asked.seed).named_parameters()}
    trainer = Trainer(asked, data, torch.device("cpu"), asked.learning_rate)
    trainer.train(None, None)
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, start[name]) == name.endswith("router"), name


def test_bias_balances_the_load(data: Corpus) -> None:
    """The sign updates of the correction bias bring the largest load closer to the mean than without them."""
    loads = [run(spec(data, steps=60, balance_rate=rate), data, device="cpu").routing for rate in (0.0, 2e-2)]
    assert all(load is not None for load in loads)
    assert loads[1].load[0] < loads[0].load[0]
    assert 1.0 <= loads[1].load[0] < 2.5
    assert loads[1].dead_experts == (0.0,)
    assert 0.9 < loads[1].entropy[0] <= 1.0


def test_optimizer_is_adamw(data: Corpus) -> None:
    """Three steps over the flat vector equal torch's AdamW on the separate params with clipping and both rates."""
    asked = spec(data, MOE, steps=3, warmup_steps=0, balance_rate=0.0)
    trainer = Trainer(asked, data, torch.device("cpu"), asked.learning_rate)
    model = Model(MOE, 64, asked.seed)
    own = {model.embedding, *(p for p in model.parameters() if p.ndim == 1)}
    groups = [
        {"params": [p for p in model.parameters() if p not in own], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p in own], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    for step in range(3):
        share = (3 - step) / 3
        optimizer.param_groups[0]["lr"] = asked.learning_rate * share
        optimizer.param_groups[1]["lr"] = asked.learning_rate * share * 32 / 64
        batch = trainer.data[step].long()
        model(batch[:, :-1], batch[:, 1:]).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        trainer.step()
    for wanted, got in zip(model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.allclose(got, wanted, rtol=0, atol=5e-5)  # of steps of 1e-2: eps and rounding at gradients near 0


def test_low_precision_keeps_full_masters() -> None:
    """In bf16 matrices are the rounded masters; router, norms and embedding stay fp32."""
    model = Model(MOE, 64, 0)
    exact = {name: p.detach().clone() for name, p in model.named_parameters()}
    flat = Flat(model, "bf16")
    for name, parameter in model.named_parameters():
        full = name == "embedding" or "norm" in name or "router" in name
        assert parameter.dtype == (torch.float32 if full else torch.bfloat16), name
        assert torch.equal(parameter.float(), exact[name] if full else exact[name].bfloat16().float())
    assert torch.equal(flat.master.sort().values, torch.cat([p.flatten() for p in exact.values()]).sort().values)


def test_divergence_is_tried_again_at_half_the_rate_and_said(data: Corpus) -> None:
    """A hopeless rate ends as diverged after two attempts, and its result can be written; nothing is raised."""
    found = run(spec(data, DENSE, learning_rate=1e30, steps=20), data, device="cpu")
    assert (found.status, found.attempts, found.loss) == ("diverged", 2, 0.0)
    assert found.learning_rate == 0.5e30
    assert records.from_json(RunResult, json.loads(json.dumps(records.to_json(found)))).status == "diverged"


def test_half_the_rate_can_save_a_run(data: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose first attempt fails finishes at half the rate and says so."""
    from moeplan.verification import train

    asked = spec(data, DENSE)
    answers = iter([True, False])
    monkeypatch.setattr(train, "diverged", lambda losses: next(answers))
    found = run(asked, data, device="cpu")
    assert (found.status, found.attempts, found.learning_rate) == ("finished", 2, asked.learning_rate / 2)
    monkeypatch.undo()
    alone = run(replace(asked, learning_rate=asked.learning_rate / 2), data, device="cpu")
    assert found.document_losses == alone.document_losses


@pytest.mark.parametrize(
    ("losses", "wanted"), [([5.0, 4.0, 3.0], False), ([5.0, float("nan"), 3.0], True), ([5.0, 4.0, 6.0], True)]
)
def test_diverged(losses: list[float], wanted: bool) -> None:
    """Not a number anywhere, or an end above the start."""
    assert diverged(np.array(losses)) is wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_digest": "0" * 16}, "data has changed"),
        ({"steps": 10**7}, "more than 4 epochs"),
        ({"architecture": replace(DENSE, vocab_size=100)}, "vocab_size 100 is below"),
        ({"steps": 0}, "steps 0 must be at least 1"),
        ({"seq_len": 0}, "seq_len 0 must be at least 1"),
    ],
)
def test_specs_that_do_not_fit_are_refused(change: dict[str, Any], message: str, data: Corpus) -> None:
    """Before anything trains, with the value."""
    with pytest.raises(UsageError, match=message):
        run(replace(spec(data, DENSE), **change), data)


def test_unknown_device_is_refused(data: Corpus) -> None:
    """A device that torch does not have is a sentence."""
    with pytest.raises(UsageError, match="give auto, cpu or cuda"):
        run(spec(data, DENSE), data, device="abacus")


def test_progress_tells_loss_and_speed(data: Corpus) -> None:
    """The last report is that of the last step, with the speed and nothing left."""
    told: list[tuple[Any, ...]] = []
    found = run(spec(data, DENSE), data, device="cpu", progress=lambda *each: told.append(each))
    step, steps, loss, speed, mfu, left = told[-1]
    assert (step, steps, left) == (30, 30, 0.0)
    assert loss == pytest.approx(found.train_losses[-1], rel=1e-6)
    assert speed > 0
    assert 0 < mfu < 1


def test_a_result_is_read_back_and_damage_is_noticed(data: Corpus, tmp_path: Path) -> None:
    """A saved result comes back equal; torn, edited, foreign or misplaced files count as missing."""
    asked = spec(data, steps=2)
    found = run(asked, data, device="cpu")
    assert results.load(tmp_path / "new", asked) is None
    path = results.save(tmp_path / "new", found)
    loaded = results.load(tmp_path / "new", asked)
    assert loaded == records.from_json(RunResult, records.to_json(found))
    assert [p.name for p in path.parent.iterdir()] == [f"{asked.digest}.json"]
    content = path.read_bytes()
    other = replace(asked, seed=9)
    path.with_name(f"{other.digest}.json").write_bytes(content)
    assert results.load(path.parent, other) is None
    for damaged in (content[:-40], b"", b"\xff\xfe", b"[1]", content.replace(b'"attempts": 1', b'"attempts": 2')):
        path.write_bytes(damaged)
        assert results.load(path.parent, asked) is None


WORKER = """
import json, sys
from moeplan import records
from moeplan.verification import results
from moeplan.verification.spec import RunSpec
from moeplan.verification.train import run, worker_setup
from tests.tiny import corpus
worker_setup()
spec = records.from_json(RunSpec, json.loads(sys.argv[1]))
def progress(*told):
    print(told[0], flush=True)
results.save(sys.argv[2], run(spec, corpus(), progress=progress, device="cpu"))
"""


def worker(asked: RunSpec, folder: Path) -> subprocess.Popen[str]:
    """A process that trains one spec."""
    command = [sys.executable, "-c", WORKER, json.dumps(records.to_json(asked)), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_killed_run_is_done_again_to_the_same_file(data: Corpus, tmp_path: Path) -> None:
    """Killed in its middle, a run leaves no result; done again it gives the file of a run in peace, timings apart."""
    asked = spec(data, steps=100)
    process = worker(asked, tmp_path / "killed")
    assert process.stdout is not None
    assert int(process.stdout.readline()) < 100
    process.kill()
    process.communicate()
    assert results.load(tmp_path / "killed", asked) is None
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    again = worker(asked, tmp_path / "killed")
    results.save(tmp_path / "peace", run(asked, data, device="cpu"))
    again.communicate()
    assert again.returncode == 0
    files = [results.result_path(tmp_path / name, asked).read_text() for name in ("killed", "peace")]
    assert strip(files[0]) == strip(files[1])


def test_an_interrupted_run_leaves_nothing(data: Corpus, tmp_path: Path) -> None:
    """Ctrl-C ends a run at once; there is no result of it."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.save(tmp_path, run(spec(data), data, device="cpu", progress=interrupt))
    assert not list(tmp_path.iterdir())


def strip(file: str) -> dict[str, Any]:
    """A result file without what times it."""
    data = json.loads(file)
    return {name: value for name, value in data.items() if name not in (*results.TIMINGS, "checksum")}


def test_transfer_by_width() -> None:
    """Four times the width halves the rate; there and back is the same rate."""
    assert transfer_learning_rate(8e-3, 32, 128) == pytest.approx(4e-3)
    assert transfer_learning_rate(transfer_learning_rate(8e-3, 32, 96), 96, 32) == pytest.approx(8e-3)


def test_probe_estimates_a_run(data: Corpus) -> None:
    """The probe takes seconds and estimates a run it has not timed: within a factor of 3, as machines are shared."""
    start = time.perf_counter()
    found = probe("cpu")
    assert time.perf_counter() - start < 30
    assert found.device_type == "cpu"
    assert found.num_devices >= 1
    assert found.memory_bytes > 1e9
    asked = spec(data, replace(DENSE, d_model=64, d_ff=192, num_heads=4), seq_len=256, batch_sequences=6, steps=12)
    step = found.step_seconds(asked.architecture, asked.seq_len, asked.batch_sequences, asked.precision)
    ratio = step * asked.steps / run(asked, data, device="cpu").seconds
    assert 1 / 3 < ratio < 3


def test_mfu_is_a_share_of_the_faster_type(data: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU whose bf16 products are a hundred times slower than its fp32 ones has one peak, that of fp32, whatever type
    a run has: no share of it is above 1."""
    peaks = {"bf16": 1e9, "fp32": 1e11}
    monkeypatch.setattr("moeplan.verification.device.matmul_flops", lambda device, precision: peaks[precision])
    for precision in ("bf16", "fp32"):
        found = run(spec(data, DENSE, steps=2, precision=precision), data, device="cpu")
        flops = found.tokens_per_second * DENSE.flops_per_token(64)
        assert found.mfu == pytest.approx(flops / 1e11)
