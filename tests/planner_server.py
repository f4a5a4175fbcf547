"""A planner served for tests: a process of its own, asked over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Server:
    """`moeplan planner` at a free port; ended by `close`."""

    def __init__(self, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "moeplan", "planner", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.said = ""
        for line in self.process.stderr:
            self.said += line
            if "Ctrl-C" in line:
                break
        match = re.search(r"http://([^/]+)/.*Ctrl-C", self.said, re.DOTALL)
        if match is None:
            self.close()
        assert match is not None, self.said
        self.host = match[1]
        self.port = int(self.host.rpartition(":")[2])

    @property
    def url(self) -> str:
        """Where its page is."""
        return f"http://{self.host}/"

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of what it answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, named)
            found = connection.getresponse()
            return found.status, {k.lower(): v for k, v in found.getheaders()}, found.read().decode("utf-8")
        finally:
            connection.close()

    def json(self, path: str, body: str = "") -> Any:
        """What it answers to a post, which must be JSON and no error."""
        status, _, text = self.ask("POST", path, body)
        assert status == 200, text
        return json.loads(text)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


def tree(root: int) -> list[int]:
    """A process and all that it started, on Linux."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def runs(process: int) -> bool:
    """Whether a process runs, on Linux; one that has ended and is still to be reaped by PID 1 does not."""
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def cpu_seconds(root: int) -> float:
    """User and system time of a process and all that it started, ended ones included [s], on Linux."""
    ticks = 0
    for process in tree(root):
        with contextlib.suppress(OSError):  # it has just ended
            fields = (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(root: int) -> int:
    """Memory of a process and all that it started, each shared page once [bytes], on Linux."""
    total = 0
    for process in tree(root):
        try:
            lines = (Path("/proc") / str(process) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total
