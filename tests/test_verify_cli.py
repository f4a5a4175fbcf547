"""`moeplan verify` as a user has it: dry run, runs, resume, files, refusals. The last tests train for some seconds."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moeplan.cli import cli
from moeplan.cli.verify import require_torch
from moeplan.errors import UsageError
from moeplan.plan.document import Plan
from moeplan.verification.verification import Verification
from tests.processes import PATIENCE, started
from tests.verify_cases import SMALL, plan_for, text_file

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch (the extra verify)")
RUNS = ["--budget", "2e11", "--device", "cpu", "--precision", "fp32"]
"""About thirty runs of a tenth of a second to a second each."""


def run(*args: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["verify", *args], prog_name="moeplan", env={"COLUMNS": "100"})


def python(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own."""
    environment = {**os.environ, "COLUMNS": "100"}
    command = [sys.executable, "-m", "moeplan", "verify", *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of few experts and a text."""
    path = tmp_path_factory.mktemp("verify")
    plan: Plan = plan_for(SMALL)
    (path / "plan.json").write_text(plan.to_text(), encoding="utf-8")
    text_file(path, 0.4)
    return path


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["missing.json"], "missing.json: cannot be read"),
        (["{plan}", "--time", "soon"], "--time 'soon' is no duration; write it like 90s, 5m or 2h"),
        (["{plan}", "--time", "5m", "--budget", "1e12"], "exclude each other"),
        (["{plan}", "--budget", "-1"], "must be positive"),
        (["{plan}", "--seeds", "0"], "seeds 0 must be 1 to 100"),
        (["{plan}", "--workers", "0"], "--workers 0 must be at least 1"),
        (["{plan}", "--data", ""], "--data '' names no file or folder"),
        (["{plan}", "--folder", " "], "--folder ' ' names no file or folder"),
        (["{plan}", "--slurm", "partition"], "write it like partition=gpu"),
        (["{plan}", "--slurm", "partition=gpu"], "give engine slurm"),
        (["{plan}", "--address", "auto"], "give engine ray"),
        (["{plan}", "--json", "--markdown"], "exclude each other"),
        (["{plan}", "--save", "no/such/folder/runs.csv"], "cannot be written"),
        (["{plan}", "--engine", "cloud"], "cloud"),
    ],
)
def test_mistakes_are_refused_in_a_sentence(arguments: list[str], says: str, folder: Path) -> None:
    """Exit code 2, one sentence with the value and what would work, nothing on stdout, before torch is needed."""
    done = run(*(a.format(plan=folder / "plan.json") for a in arguments))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_torch_the_extra_is_named() -> None:
    """Where torch is missing: exit code 2 and the command that installs it."""
    with pytest.raises(UsageError, match=r"pip install 'moeplan\[verify\]'") as refused:
        require_torch(lambda name: None)
    assert refused.value.exit_code == 2


def test_help_imports_nothing_heavy() -> None:
    """The command's help needs neither torch nor numpy."""
    code = (
        "import sys; from moeplan.cli import cli\n"
        "try:\n    cli(['verify', '--help'], prog_name='moeplan')\n"
        "except SystemExit:\n    pass\n"
        "found = {'torch', 'numpy', 'rich', 'yaml', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout


@pytest.mark.verify
@needs_torch
def test_dry_run_prints_runs_and_trains_nothing(folder: Path, tmp_path: Path) -> None:
    """Runs, FLOPs, tokens, epochs, memory and time, what is kept of the plan; no result is left."""
    common = [str(folder / "plan.json"), *RUNS, "--data", str(folder / "text.jsonl"), "--folder", str(tmp_path)]
    done = run(*common, "--dry-run", "--full")
    assert done.exit_code == 0, done.stderr
    for word in ("FLOPs", "tokens", "epochs", "memory", "time", "granularity", "kept", "MoE, tuning", "dense"):
        assert word in done.stdout
    assert not list(tmp_path.glob("*.json"))
    data = json.loads(run(*common, "--dry-run", "--json").stdout)
    assert data["train_flops"] <= 2e11
    assert sum(r["count"] * r["train_flops"] for r in data["runs"]) == pytest.approx(data["train_flops"])
    assert max(r["epochs"] for r in data["runs"]) <= 4


@pytest.mark.verify
@needs_torch
def test_a_study_measures_resumes_and_writes(folder: Path, tmp_path: Path) -> None:
    """A study with controls gives a leverage with an interval, verdict and domain, and files; interrupted, it keeps
    what is finished; the second call trains nothing and says the same."""
    common = [str(folder / "plan.json"), *RUNS, "--data", str(folder / "text.jsonl"), "--controls"]
    common += ["--folder", str(tmp_path / "runs")]
    command = [sys.executable, "-m", "moeplan", "verify", *common]
    with started(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while len(list((tmp_path / "runs").glob("*.json"))) < 2 and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert "kept in" in err
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.json")}
    assert len(kept) >= 2

    files = ["--save", str(tmp_path / "runs.csv"), "--output", str(tmp_path / "verification.json")]
    first = python(*common, *files)
    assert first.returncode == 0, first.stderr
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    found = Verification.from_json(json.loads((tmp_path / "verification.json").read_text(encoding="utf-8")))
    last = found.leverages[-1].measured
    assert last.low <= last.efficiency_leverage <= last.high
    assert found.outside_domain
    assert found.verdict in ("consistent", "inconsistent in sign", "underpowered", "router unhealthy")
    assert "far smaller than all that the law was measured on" in " ".join(first.stdout.split())
    one_expert = next(c for c in found.controls if c.control == "one_expert")
    assert one_expert.low <= 1 <= one_expert.high
    with (tmp_path / "runs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(r.purpose == "measure" and not r.control for r in found.runs)

    start = time.monotonic()
    second = python(*common)
    assert second.stdout.partition("\nNext, ")[0] == first.stdout.partition("\nNext, ")[0]  # then comes the command
    assert time.monotonic() - start < 30


@pytest.mark.verify
@needs_torch
def test_engine_plan_hands_out_commands(folder: Path, tmp_path: Path) -> None:
    """The tuning runs come first, as commands on stdout; nothing is trained."""
    done = run(
        str(folder / "plan.json"),
        *RUNS,
        "--data",
        str(folder / "text.jsonl"),
        "--folder",
        str(tmp_path),
        "--engine",
        "plan",
    )
    assert done.exit_code == 0, done.stderr
    commands = done.stdout.splitlines()
    assert len(commands) == 6
    assert all("moeplan.verification.worker" in command for command in commands)
    assert "same command again" in done.stderr


@pytest.mark.verify
@needs_torch
def test_damaged_data_and_dense_plans_are_refused(folder: Path, tmp_path: Path) -> None:
    """Text that is missing or too small, and a plan without experts: a sentence before anything trains."""
    plan = str(folder / "plan.json")
    (tmp_path / "little.txt").write_text("too little", encoding="utf-8")
    for path in ("little.txt", "missing.txt"):
        done = run(plan, *RUNS, "--data", str(tmp_path / path), "--folder", str(tmp_path / "runs"))
        assert done.exit_code == 2
        assert path in done.stderr
    from moeplan.verification.shrink import dense_proxy

    dense = plan_for(dense_proxy(SMALL, 512, 8, 32768))
    (tmp_path / "dense.json").write_text(dense.to_text(), encoding="utf-8")
    done = run(str(tmp_path / "dense.json"), *RUNS, "--folder", str(tmp_path / "runs"))
    assert done.exit_code == 1
    assert "dense" in done.stderr
    assert not (tmp_path / "runs").exists()
