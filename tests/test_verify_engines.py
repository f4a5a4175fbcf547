"""Where runs happen: every engine leaves the same results, and what is torn, killed or interrupted is run again.

Runs here train, on a text of a megabyte, models of a few thousand params for a few dozen steps.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

from moeplan import records
from moeplan.errors import InfeasibleError, UsageError
from moeplan.verification import results
from moeplan.verification.engines import local
from moeplan.verification.engines.plan import Commands
from moeplan.verification.ladder import Data, Ladder, Settings, make_ladder
from moeplan.verification.launch import Event, launch, worker_environment
from moeplan.verification.machine import probe_machine
from moeplan.verification.options import ENGINES, Where
from moeplan.verification.results import without_timings
from moeplan.verification.spec import RunResult, RunSpec, read_spec, spec_text
from moeplan.verification.worker import run_returned
from tests.processes import PATIENCE, started
from tests.verify_cases import SMALL, text_file

pytestmark = [
    pytest.mark.verify,
    pytest.mark.skipif(find_spec("torch") is None, reason="needs torch (the extra verify)"),
]
LOCAL = Where(device="cpu", workers=2)
ROOT = Path(__file__).resolve().parents[1]


def quiet(event: Event) -> None:
    """Hear nothing."""


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> list[RunSpec]:
    """Three runs, MoE and dense, of 40 steps each."""
    from moeplan.verification.data import load_corpus

    path = text_file(tmp_path_factory.mktemp("text"))
    corpus = load_corpus(path)
    data = Data(str(path), corpus.digest, corpus.vocab_size, len(corpus.tokens))
    ladder: Ladder = make_ladder(SMALL, 5e9, Settings("fp32", 1, False), data.vocab_size)
    short = [
        dataclasses.replace(spec, steps=40, batch_sequences=2, validation_tokens=2048) for spec in ladder.tuning(data)
    ]
    return [short[0], short[3], short[4]]


@pytest.fixture(scope="module")
def expected(specs: list[RunSpec], tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    """What the local engine gives."""
    return launch(specs, tmp_path_factory.mktemp("local"), LOCAL, quiet)


def same(found: list[RunResult], expected: list[RunResult]) -> bool:
    """Whether results are equal bit for bit, but for how fast they were."""
    return [without_timings(r) for r in found] == [without_timings(r) for r in expected]


def test_local_engine_runs_every_spec_once_and_reports(
    specs: list[RunSpec], expected: list[RunResult], tmp_path: Path
) -> None:
    """Results come in the order of the specs; each run is started and finished; a second call trains nothing."""
    assert [r.spec.digest for r in expected] == [s.digest for s in specs]
    assert all(r.status == "finished" for r in expected)
    events: list[Event] = []
    again = launch([*specs, specs[0]], tmp_path, LOCAL, events.append)
    assert same(again, [*expected, expected[0]])
    for kind in ("started", "finished"):
        assert sorted(e.digest for e in events if e.kind == kind) == sorted(s.digest for s in specs)
    events.clear()
    assert same(launch(specs, tmp_path, LOCAL, events.append), expected)
    assert events == []


def test_torn_and_foreign_files_are_run_again(specs: list[RunSpec], expected: list[RunResult], tmp_path: Path) -> None:
    """Of three files, one cut in half and one of another run, two are trained again; the whole one is kept."""
    for result in expected:
        results.save(tmp_path, result)
    torn = results.result_path(tmp_path, specs[0])
    torn.write_text(torn.read_text()[: torn.stat().st_size // 2])
    results.result_path(tmp_path, specs[1]).write_text(results.result_path(tmp_path, specs[2]).read_text())
    events: list[Event] = []
    assert same(launch(specs, tmp_path, LOCAL, events.append), expected)
    assert {e.digest for e in events if e.kind == "finished"} == {specs[0].digest, specs[1].digest}


def test_failures_are_told_and_the_rest_is_kept(
    specs: list[RunSpec], expected: list[RunResult], tmp_path: Path
) -> None:
    """A run whose data is not what its spec says fails with that reason; the others finish and stay."""
    broken = dataclasses.replace(specs[0], data_digest="f" * 16)
    with pytest.raises(InfeasibleError, match=r"1 of 2 proxy runs failed .*digest"):
        launch([broken, specs[1]], tmp_path, LOCAL, quiet)
    assert same([results.load(tmp_path, specs[1])], [expected[1]])  # type: ignore[list-item]


def test_after_an_error_the_next_run_has_a_fresh_process(
    specs: list[RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that meets an error ends its worker, whose device may be lost; what it said on stderr is kept."""
    wrapped = (
        "import os, sys; from moeplan.verification import worker; inner = worker.run_spec\n"
        "def run(spec, **more):\n"
        "    print('process', os.getpid(), file=sys.stderr)\n"
        "    if spec.seed == 77: raise RuntimeError('device-side assert')\n"
        "    return inner(spec, **more)\n"
        "worker.run_spec = run; worker.main(sys.argv[1:])"
    )
    real = subprocess.Popen
    started: list[object] = []

    def popen(command: list[str], **more: object) -> object:
        assert command[1:3] == ["-m", "moeplan.verification.worker"]
        started.append(real([command[0], "-c", wrapped, *command[3:]], **more))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    bad = dataclasses.replace(specs[0], seed=77, steps=specs[0].steps * 9)  # the longest comes first
    with pytest.raises(
        InfeasibleError, match=r"1 of 2 proxy runs failed \(RuntimeError: device-side assert\).*errors$"
    ):
        launch([bad, specs[1]], tmp_path, Where(device="cpu", workers=1), quiet)
    assert len(started) == 2
    assert results.load(tmp_path, specs[1]) is not None
    kept = (tmp_path / "errors" / f"{bad.digest}.txt").read_text()
    assert "Traceback" in kept
    assert "device-side assert" in kept


def test_plan_engine_prints_commands_that_give_the_same(
    specs: list[RunSpec], expected: list[RunResult], tmp_path: Path
) -> None:
    """The engine plan leaves one command a run; running one gives the local engine's result, and only two are left."""
    where = Where(engine="plan")
    with pytest.raises(Commands) as left:
        launch(specs, tmp_path, where, quiet)
    assert len(left.value.commands) == 3
    for command in left.value.commands[:1]:
        environment = {**os.environ, **worker_environment()}
        subprocess.run([*shlex.split(command), "--device", "cpu"], check=True, env=environment, timeout=PATIENCE)
    with pytest.raises(Commands) as fewer:
        launch(specs, tmp_path, where, quiet)
    assert len(fewer.value.commands) == 2
    done = [results.load(tmp_path, spec) for spec in specs]
    assert same([r for r in done if r], [e for r, e in zip(done, expected, strict=True) if r])


def test_a_killed_run_is_resumed(specs: list[RunSpec], expected: list[RunResult], tmp_path: Path) -> None:
    """Killed in the middle of the second run, a study keeps the first, leaves no half file, and ends up the same."""
    long = [dataclasses.replace(specs[1], steps=steps, seed=9) for steps in (40, 12_000)]
    code = (
        "import json, sys; from pathlib import Path; from moeplan.verification.launch import launch;"
        "from moeplan.verification.options import Where; from moeplan.verification.worker import read_spec;"
        "specs = [read_spec(line, 'x') for line in Path(sys.argv[1]).read_text().splitlines()];"
        "launch(specs, Path(sys.argv[2]), Where(device='cpu', workers=2), lambda e: print(e.kind, flush=True))"
    )
    listing = tmp_path / "specs"
    listing.write_text("".join(spec_text(s) + "\n" for s in long))
    folder = tmp_path / "runs"
    environment = {**os.environ, **worker_environment()}
    command = [sys.executable, "-c", code, str(listing), str(folder)]
    with started(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "finished":
                break
        process.send_signal(signal.SIGINT)
        process.wait(timeout=PATIENCE)
    assert process.returncode != 0
    assert results.load(folder, long[0]) is not None
    assert results.load(folder, long[1]) is None
    assert [p.name for p in folder.iterdir()] == [f"{long[0].digest}.json"]
    deadline = time.monotonic() + PATIENCE  # no worker outlives the study
    while workers_of(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not workers_of(folder)


def workers_of(folder: Path) -> list[int]:
    """Processes that serve this folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline") if Path("/proc").is_dir() else ():
        try:
            if str(folder).encode() in each.read_bytes() and b"--serve" in each.read_bytes():
                found.append(int(each.parent.name))
        except OSError:
            continue
    return found


def test_a_worker_that_dies_is_replaced(specs: list[RunSpec], expected: list[RunResult], tmp_path: Path) -> None:
    """A worker killed as by a lack of memory: its run is tried again in a new process."""
    killed: list[int] = []

    def kill_once(event: Event) -> None:
        if event.kind == "started" and not killed:
            for pid in workers_of(tmp_path):
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

    if not Path("/proc").is_dir():
        pytest.skip("needs /proc to find the worker")
    found = launch(specs[1:2], tmp_path, Where(device="cpu", workers=1), kill_once)
    assert killed
    assert same(found, expected[1:2])


@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray (the extra ray)")
def test_ray_gives_the_same(specs: list[RunSpec], expected: list[RunResult], tmp_path: Path) -> None:
    """A local Ray, started for it and stopped after, gives what the local engine gives, failures included."""
    broken = dataclasses.replace(specs[0], data_digest="f" * 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InfeasibleError, match=r"1 of 4 proxy runs failed .*digest"):
            launch([*specs, broken], tmp_path, Where(engine="ray", device="cpu", workers=2), quiet)
    assert same(launch(specs, tmp_path, Where(engine="plan"), quiet), expected)


@pytest.mark.skipif(find_spec("submitit") is None, reason="needs submitit (the extra slurm)")
def test_submitit_gives_the_same(specs: list[RunSpec], expected: list[RunResult], tmp_path: Path) -> None:
    """Jobs of submitit's local executor leave what the local engine leaves, and failures are told."""
    broken = dataclasses.replace(specs[0], data_digest="f" * 16)
    where = Where(engine="slurm", device="cpu", slurm={"cluster": "local", "timeout_min": "5"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InfeasibleError, match=r"1 of 3 proxy runs failed .*digest"):
            launch([*specs[1:], broken], tmp_path, where, quiet)
    assert same(launch(specs[1:], tmp_path, Where(engine="plan"), quiet), expected[1:])


@pytest.mark.skipif(find_spec("submitit") is None, reason="needs submitit (the extra slurm)")
def test_slurm_measures_the_machine_of_a_job(tmp_path: Path) -> None:
    """The forecast is for the machine that a job gets, by a job; a device that it lacks is a sentence."""
    where = Where(engine="slurm", device="cpu", slurm={"cluster": "local", "timeout_min": "5"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        machine = probe_machine(where, tmp_path)
    assert machine.device.startswith("CPU")
    assert not machine.is_gpu
    assert list((tmp_path / "slurm").iterdir())


def test_a_run_elsewhere_needs_no_folder(
    specs: list[RunSpec], expected: list[RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that gets the text with its task sees neither the source nor a study's folder."""
    from moeplan.verification import data
    from moeplan.verification.data import load_corpus

    corpus = load_corpus(specs[0].data)
    monkeypatch.setattr(data, "read_documents", lambda path: pytest.fail("it looked for the text"))
    found = json.loads(run_returned(spec_text(specs[0]), corpus, "cpu"))
    assert same([records.from_json(RunResult, found)], expected[:1])


def test_engines_are_modules() -> None:
    """Every engine that can be asked for is there."""
    names = {path.stem for path in (ROOT / "moeplan/verification/engines").glob("*.py")} - {"__init__"}
    assert names == set(ENGINES)


def test_specs_go_out_and_back(specs: list[RunSpec]) -> None:
    """A spec keeps its digest through a file; anything else is refused with the file's name."""
    for spec in specs:
        assert read_spec(spec_text(spec), "x").digest == spec.digest
    broken = json.loads(spec_text(specs[0]))
    for text in ("", "[]", "{}", json.dumps({**broken, "schema": "other"}), json.dumps({**broken, "steps": "many"})):
        with pytest.raises(UsageError, match=r"run\.json"):
            read_spec(text, "run.json")


def test_an_interrupt_ends_the_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the machine is measured is not waited out until the measurement ends."""
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    started_at = time.monotonic()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            local._measured("cpu", together=2)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started_at < 20
