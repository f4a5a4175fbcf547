"""How soon the planner's page draws an answer, and its memory with eight users: `python -m tests.benchmarks.planner`.

Each of 100 changes, in equal shares of memory, compute, fixes, GPUs, days and context, is typed into a field of the
page in Chromium; the time runs from the change to the first frame after the plan is drawn. Beside it stands the CPU
time of the server and its workers, which another program on the same machine changes less. Needs Linux and Chromium.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import threading
import time

from tests.chromium import Browser
from tests.planner_server import Server, cpu_seconds, resident_bytes

LIMITS = {"memory": (1, 2), "compute": (1, 2), "fixes": (1, 2), "GPUs": (3, 6), "days": (3, 6), "context": (3, 6)}
"""Median and 95th percentile [s] that each share is to keep on two free cores."""
COMPUTE, CLUSTER = "flops=1e22&memory=80GB", "gpus=256xH100&days=30&memory=80GB"
CHANGE = """
new Promise((done) => {
  const field = document.querySelector(%s), body = document.body;
  const start = performance.now();
  field.value = %s;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  const look = () => {
    const asked = location.search.slice(1);
    if (!body.matches(".stale") && (body.dataset.planned === asked || body.matches(".failed")))
      requestAnimationFrame(() => setTimeout(() => done([performance.now() - start, body.matches(".failed")])));
    else setTimeout(look, 5);
  };
  setTimeout(look, 30);
})
"""


def changes(share: str, count: int, rng: random.Random) -> list[tuple[str, str]]:
    """A field and what is typed into it, so many times."""
    if share == "memory":
        return [("#field-memory", f"{16 * 40 ** rng.random():.0f}GB") for _ in range(count)]
    if share == "compute":
        return [("#field-flops", f"{rng.uniform(1, 9.9):.2f}e{rng.choice((21, 22, 23))}") for _ in range(count)]
    if share == "fixes":
        return [("#fixed-num_experts", str(8 * rng.randrange(8, 32))) for _ in range(count)]
    if share == "GPUs":
        return [("#field-gpus", f"{8 * round(8 * 16 ** rng.random())}xH100") for _ in range(count)]
    if share == "days":
        return [("#field-days", f"{rng.uniform(5, 90):.1f}") for _ in range(count)]
    return [("#field-context", str(1024 * rng.randrange(1, 128))) for _ in range(count)]


def drawn(browser: Browser) -> None:
    """Wait until the page has nothing left to ask."""
    end = time.monotonic() + 600
    while not browser.js(
        "!document.body.matches('.stale') && document.body.dataset.drawn === location.search.slice(1)"
    ):
        assert time.monotonic() < end
        time.sleep(0.05)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share does not exceed."""
    return sorted(values)[max(0, -(-len(values) * share // 100).__int__() - 1)]


def times(server: Server, total: int, seed: int) -> None:
    """Print the time of each share of the changes."""
    rng, browser, process = random.Random(seed), Browser(), server.process.pid
    try:
        print(f"{'share':10} {'n':>3}  wall median    p95 [s]   CPU median    p95 [s]   limits on two free cores")
        for number, share in enumerate(LIMITS):
            count = total // len(LIMITS) + (number < total % len(LIMITS))
            query = CLUSTER if share in ("GPUs", "days") else COMPUTE
            browser.go(f"{server.url}?{query}{'&fix=num_experts%3D128' if share == 'fixes' else ''}")
            drawn(browser)
            wall, cpu = [], []
            for field, typed in changes(share, count, rng):
                before = cpu_seconds(process)
                milliseconds, failed = browser.js(CHANGE % (json.dumps(field), json.dumps(typed)))
                assert not failed, (field, typed, browser.js("document.querySelector('#status').textContent"))
                wall.append(milliseconds / 1000)
                cpu.append(cpu_seconds(process) - before)
                drawn(browser)
            median, most = LIMITS[share]
            print(
                f"{share:10} {count:3}  {statistics.median(wall):11.2f} {percentile(wall, 95):10.2f}  "
                f"{statistics.median(cpu):11.2f} {percentile(cpu, 95):10.2f}   {median} and {most}",
                flush=True,
            )
    finally:
        browser.close()


def users(server: Server, count: int, questions: int, seed: int) -> None:
    """Print the peak memory while so many users ask at once."""
    peak, ended, refused, problems = 0, threading.Event(), 0, []

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.2):
            peak = max(peak, resident_bytes(server.process.pid))

    def use(number: int) -> None:
        nonlocal refused
        rng = random.Random(seed + number)
        for turn in range(questions):
            share = rng.choice(("memory", "compute", "context")) if turn % 4 else "GPUs"
            _, typed = changes(share, 1, rng)[0]
            name = {"compute": "flops", "GPUs": "gpus"}.get(share, share)
            query = dict(part.split("=") for part in (CLUSTER if share == "GPUs" else COMPUTE).split("&")) | {
                name: typed
            }
            body = "&".join(f"{key}={value}" for key, value in query.items())
            for what in ("answer", "designs", "curve") if share != "GPUs" else ("answer",):
                while (found := server.ask("POST", f"/api/{what}", body))[0] == 429:
                    refused += 1
                    time.sleep(1)
                if found[0] != 200:
                    problems.append((body, found[2]))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(count)]
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    watcher.join()
    assert not problems, problems[0]
    print(
        f"{count} users, {questions} plans each in {time.monotonic() - start:.0f} s: peak memory {peak / 1e9:.2f} GB "
        f"(limit 2), asked to come again {refused} times"
    )


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    server = Server()
    try:
        if given.changes:
            times(server, given.changes, given.seed)
        if given.users:
            users(server, given.users, given.questions, given.seed)
    finally:
        server.close()


if __name__ == "__main__":
    main()
