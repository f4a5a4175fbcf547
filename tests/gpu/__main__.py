"""All that a GPU can show, in one command: `python -m tests.gpu FOLDER [NAME ...]` writes text and JSON into FOLDER.

Each part is a process with its own limit, so that one that fails leaves the others: about 8 minutes in all on an H100,
6 without `tests`. NAME picks parts. Needs the extras `verify` and `export-test`, and pytest with pytest-xdist and
hypothesis.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = os.environ.get("MOEPLAN_GPU_TESTS", "").split()
"""More arguments for pytest."""
VERIFY_TIME = os.environ.get("MOEPLAN_GPU_VERIFY", "--time 120s").split()
"""How long `verify` is to take."""


def parts(folder: Path) -> dict[str, tuple[list[str], float]]:
    """Command and limit [s] of each part, in their order; {plan} is made first."""
    python = [sys.executable, "-m"]
    pytest = [
        *python,
        "pytest",
        "tests/gpu",
        "-m",
        "gpu",
        "-n",
        "0",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "default",
        "-rA",
    ]
    return {
        "plan": ([*python, "moeplan", "recommend", "--flops", "1e22", "--memory", "80GB", "--output",
                  str(folder / "plan.json")], 60),
        "measure": ([*python, "moeplan", "hardware", "--measure", "--output", str(folder / "device.yaml")], 75),
        "tests": ([*pytest, *TESTS, f"--junitxml={folder / 'tests.xml'}"], 150),
        "layers": ([*python, "tests.gpu.figures", "layers"], 60),
        "steps": ([*python, "tests.gpu.figures", "steps", "--site", str(folder / "device.yaml")], 110),
        "kernels": ([*python, "tests.gpu.figures", "kernels"], 40),
        "verify": ([*python, "moeplan", "verify", str(folder / "plan.json"), *VERIFY_TIME, "--folder",
                    str(folder / "runs"), "--output", str(folder / "verification.json"), "--save",
                    str(folder / "runs.csv")], 400),
    }  # fmt: skip


def main() -> None:
    """Run the parts; print one line each and the end of every text."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = sys.argv[2:]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    every = parts(folder)
    for name in chosen or every:
        command, limit = every[name]
        start = time.monotonic()
        with (folder / f"{name}.txt").open("w") as out, (folder / f"{name}.err").open("w") as err:
            try:
                code: object = subprocess.run(
                    command, cwd=ROOT, env=environment, stdout=out, stderr=err, timeout=limit
                ).returncode
            except subprocess.TimeoutExpired:
                code = "stopped at its limit"
        print(f"== {name}: {code}, {time.monotonic() - start:.1f} s", flush=True)
        for suffix in ("txt", "err"):
            text = (folder / f"{name}.{suffix}").read_text(errors="replace")
            print(text[-1500:] if suffix == "txt" or code != 0 else "", flush=True)


if __name__ == "__main__":
    main()
