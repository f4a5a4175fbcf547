"""Fuzz of the command line, seeded: `python -m tests.fuzz LINES FILES [SEED]` runs as many command lines and files.

Every case must end in an exit code of 0, 1, 2 or 130, within `SECONDS`, without a traceback, without a number in JSON
that is none, and without a file that it began and left. Prints the counts, and each case that does otherwise.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from moeplan.cli import cli

SECONDS = 20
"""Longest time of a case."""
NUMBERS = (
    "1e22",
    "80GB",
    "0",
    "-1",
    "nan",
    "inf",
    "1e-300",
    "1e400",
    "",
    "8x80GB",
    "7",
    "1,5",
    "1e18",
    "ten",
    "٣",
    "2:3",
)
"""Values of options, right and wrong."""
COMMANDS = {
    "inspect": ("qwen3-30b-a3b", "deepseek-v3", "nobody", "--tokens", "--json", "--context", "--markdown"),
    "laws": ("zhao2025", "tian2025", "no-law", "--json", "--markdown", "--check"),
    "hardware": ("H100", "H1000", "--json", "--markdown"),
    "export": ("plan.json", "--to", "hf", "megatron", "--output"),
    "fit": ("runs.csv", "--form", "additive_power_law", "--map", "--draws", "--at", "--exclude", "--holdout", "--json"),
    "verify": ("plan.json", "--time", "--budget", "--seeds", "--workers", "--slurm", "--dry-run"),
    "recommend": ("--flops", "--memory", "--fix", "--gpus", "--days", "--law", "--seq-len", "--vocab-size"),
}
"""Words of each command that is cheap, or mostly refused at once."""
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

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def line(rng: random.Random) -> list[str]:
    """A command line."""
    command = rng.choice(tuple(COMMANDS))
    words = [rng.choice((*COMMANDS[command], *NUMBERS)) for _ in range(rng.randint(0, 6))]
    return [command, *words]


def damaged(rng: random.Random) -> bytes:
    """A file with bytes changed, repeated, taken out or put in."""
    content = bytearray(rng.choice(SEEDS_OF_FILES))
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(content) + 1)
        piece = rng.choice((b"", b"\0", b"\xff", b"nan", b"1e999", b"-", b'"', b"{" * 50, b",,", b"\n", b"\x1b[2J"))
        content[place : place + rng.randint(0, 4)] = piece
    return bytes(content)


def fault(arguments: list[str], folder: Path) -> str:
    """What is wrong with how a command line ends; "" if nothing."""
    before = set(folder.rglob("*"))
    try:
        with _time_limit():
            result = CliRunner().invoke(cli, arguments)
    except TooLong:
        return f"did not end in {SECONDS} s"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"{type(result.exception).__name__}: {result.exception}"
    if result.exit_code not in (0, 1, 2, 130):
        return f"exit code {result.exit_code}"
    if "Traceback" in result.output:
        return "a traceback"
    left = [path.name for path in set(folder.rglob("*")) - before if path.name.endswith(".tmp")]
    if left:
        return f"left {', '.join(left)}"
    if "--json" in arguments and result.exit_code == 0 and result.stdout.startswith(("{", "[")):
        try:
            json.loads(result.stdout, parse_constant=lambda word: 1 / 0)
        except (ValueError, ZeroDivisionError):
            return "JSON that is none"
    return ""


def faults(lines: int, files: int, folder: Path, seed: int = 0) -> list[tuple[list[str], str]]:
    """Of so many command lines and files those that end wrongly, and how; files are written into `folder`."""
    rng, found = random.Random(seed), []
    cases = [line(rng) for _ in range(lines)]
    for number in range(files):
        suffix, command = rng.choice(READERS)
        path = folder / f"{number}{suffix}"
        path.write_bytes(damaged(rng))
        cases.append([word.format(path) for word in command])
    for case in cases:
        wrong = fault(case, folder)
        if wrong:
            found.append((case, wrong))
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as own:
        wanted = [int(word) for word in sys.argv[1:]]
        wrong = faults(wanted[0], wanted[1], Path(own), *wanted[2:])
        for case, said in wrong:
            print(said, case)
        print(f"{wanted[0]} command lines and {wanted[1]} files, {len(wrong)} faults")
        sys.exit(bool(wrong))
