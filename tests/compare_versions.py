"""Compare the plans of an older version with this one's, number by number: `tests/compare_versions.py OLD_WHEEL`.

The wheel is installed into an environment of its own, at the versions of constraints.txt. Both versions answer the
budgets below, and their plans' JSON must be the same: every float to the bit, every key and every text. What was
renamed since stands in tests/data/versions/map.json, old to new:

* keys: a key's place (`spread.laws[].loss_low`, `laws[zhao2025].grade`) in the old plan and where it is now; what lies
  below moves with it;
* messages: words of texts that were reworded;
* added: places that only the new plans have;
* not_compared: places whose value may differ, each with the reason.

An entry that nothing needs is an error, too. `--golden DIR` keeps the old version's plans, so that the next comparison
with the same wheel takes a minute. `--cpu N` runs the plan of 1e22 FLOPs and 80 GB N times by each version in turn
instead, and says the ratio of their CPU time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data" / "versions"
"""Where the map lies, and a law that moeplan 0.1.0 fitted to 48 simulated runs; commands run in this folder."""
MAP = ("keys", "messages", "added", "not_compared")

BUDGETS = {
    "1e18": "--flops 1e18 --memory 4GB",
    "1e19-mla": "--flops 1e19 --memory 8GB --attention mla",
    "1e20-tokens": "--flops 1e20 --memory 24GB --tokens-available 20B --max-epochs 6 --alternatives 3",
    "1e21": "--flops 1e21 --memory 40GB",
    "1e22": "--flops 1e22 --memory 80GB",
    "1e22-mla-fp8": "--flops 1e22 --memory 80GB --attention mla --weights fp8 --kv-dtype fp8 --concurrency 8",
    "1e22-fixes": "--flops 1e22 --memory 80GB --fix granularity=8 --fix num_shared_experts=0 --range num_layers=24..40",
    "1e22-fitted": "--flops 1e22 --memory 80GB --law fitted.yaml --law zhao2025",
    "1e23-gpus": "--flops 1e23 --memory 8x80GB --gpus 256xH100 --mfu 0.3 --price-per-gpu-hour 2.5",
    "30-days": "--gpus 512xH100 --days 30 --mfu 0.25 --memory 8x80GB --memory-for both --optimizer fsdp2",
    "1e25-life": "--flops 1e25 --memory 16x80GB --inference-tokens 9T --attention mla --law zhao2025 --law abnar2025",
    "1e26": "--flops 1e26 --memory 64x80GB --max-tokens 60T",
}
"""Options of `moeplan recommend` by the plan's name: 1e18 to 1e26 FLOPs, GQA and MLA, GPUs, fixes and a fitted law."""


def environment(wheel: Path, folder: Path) -> Path:
    """A new environment that holds the wheel, and its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    subprocess.run(command, check=True)
    return python


def plan(python: Path, path: Path | None, name: str) -> str:
    """The JSON of one budget's plan by the moeplan that an interpreter finds, or that of the checkout at `path`."""
    command = [str(python), "-m", "moeplan", "recommend", *shlex.split(BUDGETS[name]), "--threads", "1", "--json"]
    own = {key: value for key, value in os.environ.items() if not key.startswith(("MOEPLAN", "PYTHONPATH"))}
    own |= {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(command, cwd=DATA, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}: {done.stderr.strip()}")
    return done.stdout


def cpu_seconds(python: Path, path: Path | None, pycache: Path) -> float:
    """CPU time of one plan [s], user and system, of a moeplan whose modules are compiled as an installed one's are."""
    command = [str(python), "-m", "moeplan", "recommend", *shlex.split(BUDGETS["1e22"])]
    own = {key: value for key, value in os.environ.items() if not key.startswith(("MOEPLAN", "PYTHON"))}
    own |= {"PYTHONPATH": str(path)} if path else {}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, cwd=DATA, env={**own, "PYTHONPYCACHEPREFIX": str(pycache)}, stdout=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare_cpu(wheel: Path, rounds: int) -> float:
    """CPU time of a plan by this version / by the old one, medians of runs in turn; printed."""
    with tempfile.TemporaryDirectory(prefix="moeplan-versions-") as scratch:
        versions = {
            "old": (environment(wheel, Path(scratch) / "environment"), None),
            "new": (Path(sys.executable), ROOT),
        }
        seconds: dict[str, list[float]] = {name: [] for name in versions}
        for place in range(rounds + 1):  # the first compiles
            for name, version in versions.items():
                taken = cpu_seconds(*version, Path(scratch) / "pycache")
                if place:
                    seconds[name].append(taken)
    old, new = (statistics.median(seconds[name]) for name in ("old", "new"))
    print(f"CPU time of a plan: old {old:.2f} s, new {new:.2f} s, ratio {new / old:.2f} (medians of {rounds} in turn)")
    return new / old


def old_plans(wheel: Path, golden: Path | None, names: list[str]) -> dict[str, Any]:
    """The plans of the wheel, from `golden` where they lie there, else made and put there."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()[:16]
    with tempfile.TemporaryDirectory(prefix="moeplan-versions-") as scratch:
        folder = (golden or Path(scratch)) / digest
        folder.mkdir(parents=True, exist_ok=True)
        # Under a digest of the question, so that a changed one is asked anew.
        keys = {name: hashlib.sha256(BUDGETS[name].encode()).hexdigest()[:8] for name in names}
        files = {name: folder / f"{name}-{keys[name]}.json" for name in names}
        missing = [name for name in names if not files[name].exists()]
        if missing:
            python = environment(wheel, Path(scratch) / "environment")
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for name, text in zip(missing, pool.map(lambda each: plan(python, None, each), missing), strict=True):
                    files[name].write_text(text, encoding="utf-8")
        return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()}


def leaves(data: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a JSON text with its place, as in `alternatives[0].tokens`, and empty lists and objects.

    What a law says is under the law's name, as in `laws[zhao2025].optimum.tokens`.
    """
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from leaves(value, f"{place}.{key}" if place else key)
    elif isinstance(data, list) and data:
        for index, value in enumerate(data):
            name = value.get("law", index) if isinstance(value, dict) else index
            yield from leaves(value, f"{place}[{name}]")
    else:
        yield place, data


def below(place: str, pattern: str) -> bool:
    """Whether a place is the pattern's or lies below it; `[]` in a pattern is any index or law."""
    at = re.escape(pattern).replace(r"\[\]", r"\[[^\]]*\]")
    return re.match(rf"{at}(?=$|[.\[])", place) is not None


class Renames:
    """The map of what was renamed, and which of its entries were needed."""

    def __init__(self, entries: dict[str, Any]) -> None:
        if set(entries) != set(MAP):
            raise SystemExit(f"the map has the keys {', '.join(entries)}, must have {', '.join(MAP)}")
        self.entries = entries
        self.used: set[tuple[str, str]] = set()

    def applies(self, kind: str, place: str) -> bool:
        """Whether an entry of `added` or `not_compared` covers a place."""
        found = [pattern for pattern in self.entries[kind] if below(place, pattern)]
        self.used |= {(kind, pattern) for pattern in found}
        return bool(found)

    def place(self, place: str) -> str:
        """Where an old place is now; indices stay."""
        for old, new in self.entries["keys"].items():
            if below(place, old):
                self.used.add(("keys", old))
                depth = len(old.split("."))
                indices = re.findall(r"\[[^\]]*\]", ".".join(place.split(".")[:depth]))
                rest = ".".join(place.split(".")[depth:])
                moved = new
                for index in indices:  # an index of the last key, past the pattern, ends it
                    moved = moved.replace("[]", index, 1) if "[]" in moved else moved + index
                return f"{moved}.{rest}" if rest else moved
        return place

    def text(self, value: Any) -> Any:
        """An old text in today's words."""
        if isinstance(value, str):
            for old, new in self.entries["messages"].items():
                if old in value:
                    self.used.add(("messages", old))
                    value = value.replace(old, new)
        return value

    def unused(self) -> list[str]:
        """The entries that nothing needed."""
        return [f"{kind}: {entry}" for kind in MAP for entry in self.entries[kind] if (kind, entry) not in self.used]


def same(old: Any, new: Any) -> bool:
    """Whether two values are equal, of one kind, and floats to the bit."""
    if isinstance(old, float) and isinstance(new, float):
        return old.hex() == new.hex()
    return type(old) is type(new) and bool(old == new)


def differences(old: Any, new: Any, renames: Renames) -> list[str]:
    """What differs between two plans beyond the map, in words."""
    before = {renames.place(place): renames.text(value) for place, value in leaves(old)}
    after = dict(leaves(new))
    found = []
    for place in {**before, **after}:
        if renames.applies("not_compared", place):
            continue
        if place not in before:
            if not renames.applies("added", place):
                found.append(f"{place}: only in the new plan, {after[place]!r}")
        elif place not in after:
            found.append(f"{place}: only in the old plan, {before[place]!r}")
        elif not same(before[place], after[place]):
            found.append(f"{place}: was {before[place]!r}, is {after[place]!r}")
    return found


def main() -> int:
    """Compare, print what differs, and return 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, metavar="OLD_WHEEL")
    parser.add_argument("--golden", type=Path, metavar="DIR", help="keep the old version's plans there")
    parser.add_argument("--only", nargs="+", choices=BUDGETS, metavar="NAME", help=f"of {', '.join(BUDGETS)}")
    parser.add_argument("--cpu", type=int, metavar="N", help="compare the CPU time of N runs of each instead")
    chosen = parser.parse_args()
    if chosen.cpu:
        compare_cpu(chosen.wheel, chosen.cpu)
        return 0
    names = chosen.only or list(BUDGETS)
    old = old_plans(chosen.wheel, chosen.golden, names)
    renames = Renames(json.loads((DATA / "map.json").read_text(encoding="utf-8")))
    failed, values = False, 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, text in zip(names, pool.map(lambda each: plan(Path(sys.executable), ROOT, each), names), strict=True):
            found = differences(old[name], json.loads(text), renames)
            values += sum(1 for _ in leaves(old[name]))
            failed |= bool(found)
            print(f"{name}: {f'{len(found)} differ' if found else 'the same'}")
            print("".join(f"  {line}\n" for line in found), end="")
    unused = [] if chosen.only else renames.unused()
    print("".join(f"the map has an entry that nothing needs: {entry}\n" for entry in unused), end="")
    print(f"{values:,} values of {len(names)} plans compared")
    return int(failed or bool(unused))


if __name__ == "__main__":
    sys.exit(main())
