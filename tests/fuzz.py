"""Fuzz of the command line, seeded: `python -m tests.fuzz LINES FILES [SEED]` runs as many command lines and files.

Every case must end in an exit code of 0, 1, 2 or 130, within `SECONDS` of the processor, without a traceback, without a
number in JSON that is none, beyond `LARGEST` or a negative count, and without a file that it left when it failed.
Prints the counts, and each case that does otherwise.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from moeplan.cli import cli

SECONDS = 20
"""Longest time of a case, of the processor [s]."""
REAL_SECONDS = 300
"""Longest time of a case by the wall clock, which a busy machine stretches; `SECONDS` are of the processor."""
LARGEST = 1e40
"""Larger numbers in JSON are nonsense: no count, time or price comes near."""
WRONG = 0.06
"""Share of the values that are wrong on purpose; with several values a line, a third of the lines has one."""
NUMBERS = ("0", "-1", "nan", "inf", "1e-300", "1e400", "", "8x80GB", "7", "1,5", "1e18", "ten", "٣", "2:3", "\x1b[2J")
"""Values of options, right and wrong."""
MODELS = ("qwen3-30b-a3b", "deepseek-v3", "olmoe-1b-7b", "mixtral-8x7b", "llama-3-8b", "gpt-oss-20b", "nobody")
ROOT = Path(__file__).resolve().parents[1]
MEASURED, OTHER = (str(ROOT / "examples" / name) for name in ("h100.yaml", "atlas-800t-a2.yaml"))
"""Devices' files: one that was measured, one that is no bundled GPU."""
FITTED = str(ROOT / "tests" / "data" / "versions" / "fitted.yaml")
"""A law with the covariance of its coefficients."""
LAWS = ("zhao2025", "tian2025", "ludziejewski2025", "abnar2025", "hoffmann2022", "steplaw2025", FITTED, "no-law")
SMALL = ("--fix", "num_layers=24", "--fix", "d_model=2048", "--fix", "num_experts=64")
"""A search of a few hundred designs."""
ASKED = {
    "--flops": ("1e19", "1e20", "3e21", "1e22", "1e24"),
    "--memory": ("24GB", "80GB", "141GB", "8x80GB"),
    "--tokens": ("1T", "300B", "2e12"),
    "--seq-len": ("2048", "4096", "32k"),
    "--vocab-size": ("32768", "131072"),
    "--law": LAWS,
    "--weights": ("bf16", "fp8", "int4"),
    "--kv-dtype": ("bf16", "fp8"),
    "--context": ("8192", "32768"),
    "--concurrency": ("1", "16"),
    "--headroom": ("0.1", "20%"),
    "--attention": ("gqa", "mla", "gdn-3:1", "mamba2-3:1"),
    "--tokens-available": ("1T", "30T"),
    "--inference-tokens": ("1T", "1e13"),
    "--alternatives": ("2", "5"),
    "--choose": ("best", "lean", "rich", "robust"),
    "--gpus": ("8xA100-80GB", "64xH100", "256xH100", "7xH200", "64xB200", "8xA100", f"8x{MEASURED}", f"32x{OTHER}"),
    "--days": ("1", "30", "0.5"),
    "--goodput": ("0.9", "85%"),
    "--optimise": ("flops", "time", "money"),
    "--train-precision": ("bf16", "fp8", "mxfp8", "nvfp4"),
    "--software": ("eager", "partial graphs", "full graphs"),
    "--layout": ("tp=1,pp=1,ep=8", "tp=2,ep=4", "pp=3", "tp=1,pp=2,ep=8,vp=2,mbs=1", "ep=64"),
    "--batch": ("256", "1024", "17"),
    "--multiple-of": ("num_experts=32", "d_expert=128", "granularity=2"),
    "--mfu": ("0.3", "40%"),
    "--measured": (
        "qwen3-30b-a3b on 64xH100, tp=1,pp=2,ep=8: 8900 tokens/s/GPU",
        "olmoe-1b-7b on 8xA100: 9e4 tokens/s",
        f"olmoe-1b-7b on 8x{MEASURED}, ep=8: 2e5 tokens/s",
    ),
    "--price-per-gpu-hour": ("2.5", "0"),
    "--memory-for": ("training", "inference", "both"),
    "--optimizer": ("megatron", "zero3", "zero1"),
    "--fix": ("granularity=8", "num_shared_experts=0", "num_experts=48", "tokens=1T", "num_dense_layers=1"),
    "--range": ("tokens=300B..1T", "granularity=2..8", "num_experts=100..10"),
    "--served": ("1T", "4e13"),
    "--serve-gpus": ("1xH100", "8xH100", "8xH200", f"1x{MEASURED}", f"8x{OTHER}"),
    "--prompt-tokens": ("512", "0", "1048576"),
    "--answer-tokens": ("512", "1"),
    "--tokens-per-second-per-user": ("20", "60", "1e6"),
    "--section": ("laws", "memory", "layouts", "nothing"),
    "--within": ("0.05", "2%"),
    "--max-tokens": ("1T", "5e10"),
    "--latent": ("2", "4"),
    "--over": ("granularity", "num_experts", "gpus", "days", "concurrency"),
    "--to": ("hf", "megatron"),
}
"""Values of options of several commands that may be right."""
SEARCH = (
    "--seq-len", "--vocab-size", "--law", "--weights", "--kv-dtype", "--context", "--concurrency", "--headroom",
    "--attention", "--tokens-available", "--inference-tokens", "--tied", "--json", "--json", "--markdown",
)  # fmt: skip
CLOCK = (
    "--gpus", "--goodput", "--optimise", "--train-precision", "--software", "--layout", "--batch", "--multiple-of",
    "--mfu", "--measured", "--price-per-gpu-hour", "--memory-for", "--optimizer", "--range", "--served",
    "--serve-gpus", "--prompt-tokens", "--answer-tokens", "--tokens-per-second-per-user", "--max-tokens",
)  # fmt: skip
COMMANDS: tuple[tuple[str, int, tuple[tuple[str, ...], ...], tuple[str, ...]], ...] = (
    # its name, how often, what it begins with, what may follow
    ("inspect", 5, tuple((model,) for model in (*MODELS, "{plan}")), (
        "--tokens", "--flops", "--seq-len", "--weights", "--kv-dtype", "--context", "--concurrency", "--json",
        "--markdown", "--memory", "--gpus", "--gpus", "--layout", "--batch", "--train-precision", "--software",
        "--optimizer", "--measured", "--balanced", "--section", "--full")),
    ("laws", 20, ((), *((law,) for law in LAWS)), ("--json", "--markdown", "--check")),
    ("hardware", 20, ((), ("H100",), ("H200",), ("B200",), ("A100",), ("H1000",), (MEASURED,), (OTHER,)),
     ("--json", "--markdown")),
    ("schema", 8, ((), ("plan",), ("verification",), ("fit",), ("nothing",)), ()),
    ("export", 24, tuple((source, "--to", to) for source in ("{plan}", "qwen3-30b-a3b") for to in (
        "hf", "megatron", "maxtext", "torchtitan", "nothing")), ("--tokens", "--output")),
    ("fit", 6, tuple(("{runs}", "--draws", "0", "--form", form) for form in (
        "additive_power_law", "additive_power_law", "expansion_joint", "no-form")), (
        "--json", "--markdown", "--output", "--drop-highest-loss=1", "--holdout=1", "--seed=3")),
    ("verify", 10, (("{plan}", "--budget", "1e10", "--dry-run"), ("{plan}", "--time", "1s", "--budget", "1e12"),
                   ("{plan}", "--seeds", "0", "--dry-run"), ("{runs}", "--dry-run")), (
        "--controls", "--json", "--workers=1")),
    ("upcycle", 2, tuple((dense, "--flops", "1e22", "--experts", count) for dense in ("llama-3-8b", "qwen3-0.6b")
                         for count in ("8", "16")), (
        "--memory", "--json", "--markdown", "--output", "--shared", "--gpus", "--to")),
    ("compare", 2, (("qwen3-30b-a3b", "deepseek-v3"), ("olmoe-1b-7b", "mixtral-8x7b@5T"), ("{plan}",)), (
        "--json", "--markdown", "--seq-len", "--weights", "--gpus", "--measured", "--memory", "--full")),
    ("compare", 1, tuple(("--flops", flops, "--memory", "80GB", *SMALL) for flops in ("1e20", "1e21")), (
        *SEARCH, *CLOCK, "--days", "--full")),
    ("recommend", 1, (("--from", "{plan}"),), (*SEARCH, *CLOCK, "--flops", "--memory", "--days", "--fix")),
    ("recommend", 1, (("--target-el", "2", *SMALL), ("--match-dense", "1B", "--dense-tokens", "100B", *SMALL)), (
        *SEARCH, "--memory", "--memory", "--fix", "--range", "--served", "--serve-gpus")),
    ("recommend", 2, tuple(("--flops", flops, "--memory", memory, *SMALL) for flops in ASKED["--flops"]
                           for memory in ASKED["--memory"]), (
        *SEARCH, *CLOCK, "--alternatives", "--choose", "--output", "--days", "--section", "--full", "--latent")),
    ("recommend", 2, tuple(("--gpus", gpus, "--days", days, *SMALL) for gpus in ASKED["--gpus"]
                            for days in ASKED["--days"]), (
        *SEARCH, *CLOCK, "--memory", "--choose", "--output", "--full", "--flops", "--fix")),
    ("frontier", 1, tuple(("--flops", "1e21", "--memory", memory, "--points", "3", *SMALL) for memory in (
        "24GB..80GB", "80GB..640GB", "80GB")), (*SEARCH, "--over", "--gpus", "--days")),
    ("help", 2, ((), ("words",), ("recommend",), ("nothing",)), ()),
)  # fmt: skip
"""Lines of every command: most of them right, none that searches for long, the cheap ones most often."""
PLAN = ("--flops", "1e21", "--memory", "80GB", "--fix", "num_layers=24", "--fix", "d_model=2048")
"""The plan that lines read."""
COUNTS = ("params", "tokens", "flops", "bytes", "seconds", "days", "gpus", "layers", "experts", "heads", "hours")
"""Ends of the names of numbers that are never negative."""
SEEDS_OF_FILES = (
    b"total_params,tokens,loss\n1e8,1e9,3.2\n2e8,2e9,3.0\n4e8,4e9,2.8\n8e8,8e9,2.7\n1e9,2e10,2.5\n2e9,2e10,2.4\n",
    b'{"model_type": "mixtral", "hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8}',
    b'{"schema": "moeplan.plan/2", "runs": []}',
    b"schema: moeplan.law/1\nname: own\ntitle: Own\nfits: {}\n",
)
"""Whole files that are damaged: runs, a config, a plan, a law."""
READERS = (
    (".csv", ("fit", "{}", "--form", "additive_power_law", "--draws", "0", "--json")),
    (".json", ("inspect", "{}", "--json")),
    (".json", ("export", "{}", "--to", "hf")),
    (".json", ("verify", "{}", "--dry-run")),
    (".yaml", ("laws", "{}", "--json")),
)
"""Commands that read a file, with the end of its name."""


class TooLong(BaseException):
    """A case that did not end; no handler of errors may take it."""


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLong

    clocks = (signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, REAL_SECONDS)
    old = [signal.signal(number, stop) for number, _, _ in clocks]
    for _, clock, seconds in clocks:
        signal.setitimer(clock, seconds)
    try:
        yield
    finally:
        for (number, clock, _), before in zip(clocks, old, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(number, before)


def line(rng: random.Random) -> list[str]:
    """A command line: {plan}, {runs} and {output} stand for files."""
    command, _, begins, options = rng.choices(COMMANDS, [often for _, often, _, _ in COMMANDS])[0]
    words = list(rng.choice(begins))
    for option in rng.sample(options, rng.randint(0, min(3, len(options)))):
        if (option == "--markdown" and "--json" in words) or option in words:
            continue
        words.append(option)
        if option in ("--output",):
            words.append("{output}")
        elif option in ASKED:
            words.append(rng.choice(ASKED[option]))
    words = [rng.choice(NUMBERS) if rng.random() < WRONG else word for word in words]
    if rng.random() < WRONG:
        words.insert(rng.randint(0, len(words)), rng.choice(NUMBERS))
    return [command, *words]


def nonsense(data: object, name: str = "") -> str:
    """The first number in JSON that is none, or too large, or a negative count; "" if there is none."""
    inside = data.items() if isinstance(data, dict) else ((name, x) for x in data) if isinstance(data, list) else ()
    for key, value in inside:
        found = nonsense(value, key)
        if found:
            return found
    if isinstance(data, bool) or not isinstance(data, int | float):
        return ""
    wrong = data != data or abs(data) > LARGEST or (data < 0 and name.rpartition("_")[2] in COUNTS)
    return f"{name} is {data}" if wrong else ""


def damaged(rng: random.Random) -> bytes:
    """A file with bytes changed, repeated, taken out or put in."""
    content = bytearray(rng.choice(SEEDS_OF_FILES))
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(content) + 1)
        piece = rng.choice((b"", b"\0", b"\xff", b"nan", b"1e999", b"-", b'"', b"{" * 50, b",,", b"\n", b"\x1b[2J"))
        content[place : place + rng.randint(0, 4)] = piece
    return bytes(content)


def fault(arguments: list[str], folder: Path, codes: Counter[int] | None = None) -> str:
    """What is wrong with how a command line ends; "" if nothing."""
    before = set(folder.iterdir())
    try:
        with _time_limit():
            result = CliRunner().invoke(cli, arguments)
    except TooLong:
        return f"did not end in {SECONDS} s"
    if codes is not None:
        codes[result.exit_code] += 1
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"{type(result.exception).__name__}: {result.exception}"
    if result.exit_code not in (0, 1, 2, 130):
        return f"exit code {result.exit_code}"
    if "Traceback" in result.output:
        return "a traceback"
    made = sorted(set(folder.iterdir()) - before)
    left = [path.name for path in made if path.name.endswith(".tmp") or result.exit_code]
    for path in made:
        if path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path)
    if left:
        return f"left {', '.join(left)}"
    if "--json" in arguments and result.exit_code == 0 and result.stdout.startswith(("{", "[")):
        try:
            return nonsense(json.loads(result.stdout))
        except ValueError:
            return "JSON that is none"
    return ""


def faults(
    lines: int, files: int, folder: Path, seed: int = 0, codes: Counter[int] | None = None
) -> list[tuple[list[str], str]]:
    """Of so many command lines and files those that end wrongly, and how; files are written into `folder`.

    `codes` counts the exit codes of the command lines.
    """
    rng, found = random.Random(seed), []
    plan, runs, output = (str(folder / name) for name in ("plan.json", "runs.csv", "output.txt"))
    CliRunner().invoke(cli, ["recommend", *PLAN, "--output", plan], catch_exceptions=False)
    Path(runs).write_bytes(SEEDS_OF_FILES[0])
    for _ in range(lines):
        case = [word.format(plan=plan, runs=runs, output=output) for word in line(rng)]
        wrong = fault(case, folder, codes)
        if wrong:
            found.append((case, wrong))
    for number in range(files):
        suffix, command = rng.choice(READERS)
        path = folder / f"{number}{suffix}"
        path.write_bytes(damaged(rng))
        case = [word.format(path) for word in command]
        wrong = fault(case, folder)
        path.unlink(missing_ok=True)
        if wrong:
            found.append((case, wrong))
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as own:
        os.chdir(own)  # an output may be called anything
        wanted = [int(word) for word in sys.argv[1:]]
        codes: Counter[int] = Counter()
        wrong = faults(wanted[0], wanted[1], Path(own), *wanted[2:], codes=codes)
        for case, said in wrong:
            print(said, case)
        ends = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
        print(f"{wanted[0]} command lines (exit codes {ends}) and {wanted[1]} files, {len(wrong)} faults")
        sys.exit(bool(wrong))
