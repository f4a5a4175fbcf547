"""The planner's server: what its form holds, that its answers are the command line's, whom it answers, and its line."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from moeplan.cli import cli
from moeplan.cli.planner import form_fields, read_arguments
from moeplan.cli.recommend import recommend
from moeplan.errors import MoeplanError, UsageError
from moeplan.planner.fields import (
    Question,
    arguments_of,
    command_of,
    query_of,
    question_of,
    read_state,
    without_shape,
)
from moeplan.planner.pool import WAITING, BusyError, Pool
from moeplan.planner.worker import OUT_OF_MEMORY, Failure, _Work, cancel
from tests.planner_server import Server, resident_bytes, runs, tree

FIELDS = form_fields()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A planner."""
    found = Server()
    yield found
    found.close()


def printed(command: str) -> str:
    """The JSON that a command line prints."""
    name, *arguments = shlex.split(command)
    assert name == "moeplan"
    done = CliRunner().invoke(cli, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return done.output


def test_every_option_of_a_plan_is_a_field() -> None:
    """The form has each option of `moeplan recommend` but those of targets, files and output, by its flag's name."""
    own = {
        option.opts[0]
        for option in recommend.params
        if option.heading not in ("Target", "Output") and option.metavar != "FILE"
    }
    assert {field.flags[0] for field in FIELDS.values()} == own
    assert {"flops", "memory", "gpus", "days", "fix", "law", "context", "choose", "served"} <= set(FIELDS)


STATES = (
    "flops=1e22&memory=80GB",
    "flops=5ZFLOP&memory=8x24GB&weights=int4&context=32768&concurrency=4",
    "flops=1e20&memory=24GB&fix=granularity%3D8&fix=num_shared_experts%3D0&range=tokens%3D30B..1T&tied=untied",
    "flops=1e22&memory=80GB&law=zhao2025%3D0.5&choose=lean&max-tokens=1T",
    "gpus=16xH100&days=3&memory=80GB",
)
FEW = (0, 2, 4)
"""Those that the default suite answers on both sides; `-m slow` answers the others."""


@pytest.mark.parametrize("query", STATES)
def test_states_links_and_commands_say_the_same(query: str) -> None:
    """A link's query becomes a state and the same state again, and its command line reads as the same budget."""
    state = read_state(query, FIELDS)
    assert read_state(query_of(state), FIELDS) == state
    question = question_of(state, FIELDS, read_arguments)
    assert question.command == command_of(state, FIELDS)
    budget, laws, choose = read_arguments(shlex.split(question.command)[2:])
    assert (budget, laws, choose) == (question.budget, question.laws, question.choose)


@pytest.mark.parametrize(
    "query", [query if n in FEW else pytest.param(query, marks=pytest.mark.slow) for n, query in enumerate(STATES)]
)
def test_the_answer_is_the_command_lines(server: Server, query: str) -> None:
    """The plan file that is downloaded is, to the byte, what the shown command line prints as JSON."""
    status, _, text = server.ask("POST", "/api/plan", query)
    assert status == 200, text
    shown = server.json("/api/answer", query)["command"]
    before = json.loads(printed(shown))
    before["provenance"]["command"] = before["provenance"]["command"].removesuffix(" --json")
    found = json.loads(text)
    found["provenance"]["command"] = before["provenance"]["command"]  # a test's own runner records none
    assert found == before


@pytest.mark.slow
def test_a_warm_answer_is_a_cold_one(server: Server) -> None:
    """Whatever was asked before, the same question has the same plan: memory, compute, weights and fixes change."""
    asked = [f"flops={flops}&memory={memory}" for flops in ("1e22", "3e22") for memory in ("80GB", "200GB", "40GB")]
    asked += [
        asked[0] + more for more in ("&fix=num_experts%3D128", "&law=zhao2025%3D3", "&context=32768", "&latent=4")
    ]
    for query in asked:
        server.json("/api/answer", query)
    for query in [*asked[1:6:2], *asked[6:]]:
        command = command_of(read_state(query, FIELDS), FIELDS)
        plan = json.loads(server.ask("POST", "/api/plan", query)[2])
        cold = json.loads(printed(command))
        assert {name: plan[name] for name in plan if name != "provenance"} == {
            name: cold[name] for name in cold if name != "provenance"
        }


def test_curve_points_are_what_recommend_answers(server: Server) -> None:
    """A point of the curve along memory is the plan at that memory limit."""
    points = server.json("/api/curve", "flops=1e22&memory=80GB")["points"]
    assert len(points) > 40
    for point in points[5::20]:
        plan = json.loads(printed(f"moeplan recommend --flops 1e22 --memory {point['x'] / 1e9}GB"))
        assert plan["value_ratio"] == pytest.approx(point["y"], rel=1e-9)


def test_a_design_that_is_clicked_is_planned(server: Server) -> None:
    """Fixing the values of a near-equal design plans that design, and the designs beside it stay the same ones."""
    query = "flops=1e22&memory=80GB"
    found = server.json("/api/designs", query)
    point = min(found["points"], key=lambda each: each["x"])
    fixed = query + "".join(f"&fix={text.replace('=', '%3D')}" for text in point["fix"])
    answer = server.json("/api/answer", fixed)
    assert answer["point"]["x"] == point["x"]
    assert point["size"] in answer["title"]
    assert query_of(without_shape(read_state(fixed, FIELDS))) == query_of(read_state(query, FIELDS))
    assert server.json("/api/designs", fixed) == found


@pytest.mark.parametrize(
    "query, words",
    [
        ("flops=1e22", "memory limit is missing"),
        ("flops=lots&memory=80GB", "1e22 or 5ZFLOP"),
        ("flops=1e22&memory=100MB", "too small"),
        ("flops=1e22&memory=80GB&frobnicate=1", "unknown field"),
        ("flops=1e22&flops=1e23&memory=80GB", "given twice"),
        ("flops=1e22&memory=80GB&fix=num_experts", "NAME=VALUE"),
        ("flops=1e22&memory=80GB&law=..%2Fsecret.yaml", "not bundled"),
        ("gpus=8xmine.yaml&days=3&memory=80GB", "only the command line reads"),
        ("gpus=8x%2Fetc%2Fpasswd&days=3&memory=80GB", "only the command line reads"),
        ("gpus=8xH100&days=3&memory=80GB&measured=runs.yaml", "no bundled model"),
        ("request=question&flops=1e22&memory=80GB", "unknown field"),
        ("flops=--output&memory=80GB", "dash"),
        ("flops=%ff&memory=80GB", "cannot be read"),
        ("&".join(["fix=num_experts%3D64"] * 50), "up to 40"),
        ("flops=1e22&memory=80GB&optimizer=" + "x" * 300, "characters"),
    ],
)
def test_mistakes_are_one_sentence(server: Server, query: str, words: str) -> None:
    """What cannot be planned is answered by a sentence that says why, and nothing else."""
    status, _, text = server.ask("POST", "/api/answer", query)
    assert status == 422
    assert words in json.loads(text)["error"]
    assert "Traceback" not in text


def test_only_its_own_page_may_ask(server: Server) -> None:
    """Requests under a foreign host, posts of a foreign origin or site, and bodies of any size are refused."""
    port = server.port
    for host in (f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        assert server.ask("GET", "/", Host=host)[0] == 403, host
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert server.ask("GET", "/", Host=host)[0] == 200, host
    body = "flops=1e22&memory=80GB"
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        assert server.ask("POST", "/api/answer", body, **headers)[0] == 403, headers
    assert server.ask("POST", "/api/answer", body, Origin=f"http://127.0.0.1:{port}")[0] == 200
    assert server.ask("POST", "/api/answer", "x" * 100_000)[0] == 413
    assert server.ask("GET", "/static/..%2fapp.py")[0] == 404
    assert server.ask("GET", "/api/answer")[0] == 405


def test_the_page_may_load_nothing_else(server: Server) -> None:
    """The policy allows the page its own files alone; no script or style stands in it, none comes from elsewhere."""
    _, headers, page = server.ask("GET", "/")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "style=" not in page
    assert "<style" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert headers["x-content-type-options"] == "nosniff"
    for name in ("page.css", "planner.css", "planner.js", "charts.js", "state.js", "form.js", "answer.js"):
        status, _, text = server.ask("GET", f"/static/{name}")
        assert status == 200
        assert "https:" not in text


def test_files_of_a_plan(server: Server) -> None:
    """The Hugging Face configuration is that of `moeplan export`, and the page holds the plan."""
    query = "flops=1e22&memory=80GB"
    plan = json.loads(server.ask("POST", "/api/plan", query)[2])
    config = json.loads(server.ask("POST", "/api/export/hf", query)[2])
    assert config["num_hidden_layers"] == plan["architecture"]["num_layers"]
    assert "--num-experts" in server.ask("POST", "/api/export/megatron", query)[2]
    status, headers, page = server.ask("POST", "/api/page", query)
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert "Content-Security-Policy" in page
    assert server.ask("POST", "/api/export/nothing", query)[0] == 422


def test_arguments_are_one_flag_each() -> None:
    """Words of a state are flags of the command with one value each, and a choice of flags is the flag."""
    state = read_state("tied=tied&flops=1e22&memory=80GB", FIELDS)
    assert arguments_of(state, FIELDS) == ["--flops", "1e22", "--memory", "80GB", "--tied"]


def test_a_foreign_address_is_warned_of() -> None:
    """Listening beyond this machine prints a warning and answers under this machine's own names, no others."""
    server = Server("--host", "0.0.0.0")
    try:
        assert "Warning" in server.said
        assert "no password" in server.said
        for name, status in ((socket.gethostname(), 200), ("127.0.0.1", 200), ("evil.example", 403)):
            assert server.ask("GET", "/", Host=f"{name}:{server.port}")[0] == status
    finally:
        server.close()


def test_it_ends_quietly_and_says_where_it_cannot_listen(server: Server) -> None:
    """Ctrl-C ends it, its workers too, with no error; a port that is taken is named in a sentence."""
    other = Server()
    try:
        assert "Warning" not in other.said
        processes = tree(other.process.pid) if sys.platform.startswith("linux") else []
        other.process.send_signal(signal.SIGINT)
        assert other.process.wait(30) == 0
        assert other.process.stderr is not None
        assert other.process.stderr.read() == ""
    finally:
        other.close()
    end = time.monotonic() + 5  # multiprocessing's tracker ends itself when it sees that the server has
    while any(map(runs, processes)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(runs, processes))
    done = CliRunner().invoke(cli, ["planner", "--port", str(server.port)])
    assert done.exit_code == 2
    assert "cannot be listened at" in done.output
    assert "--port" in done.output


def test_arguments_that_cannot_be_are_refused() -> None:
    """The form's words are refused with the command line's own sentences."""
    with pytest.raises(UsageError, match="compute budget"):
        read_arguments(["--flops", "nothing", "--memory", "80GB"])
    with pytest.raises(MoeplanError):
        read_arguments(["--days", "0"])


def asked(query: str) -> Question:
    """What a query asks."""
    return question_of(read_state(query, FIELDS), FIELDS, read_arguments)


LONG = "gpus=512xH100&days=60&memory=640GB"
"""A question whose search takes some seconds."""


def test_the_line_is_short_and_left() -> None:
    """Sixteen wait and the next is turned away; whoever leaves makes room, a search for GPUs that is left ends."""

    async def line() -> None:
        async with Pool(1) as pool:
            first = asyncio.create_task(pool.ask("plan", asked(LONG), long=True))
            await asyncio.sleep(0.1)
            others = [asyncio.create_task(pool.ask("plan", asked("flops=1e20&memory=8GB"))) for _ in range(WAITING)]
            await asyncio.sleep(0.1)
            with pytest.raises(BusyError):
                await pool.ask("plan", asked("flops=1e20&memory=8GB"))
            for task in others[1:]:
                task.cancel()
            await asyncio.gather(*others[1:], return_exceptions=True)
            last = asyncio.create_task(pool.ask("designs", asked("flops=1e20&memory=8GB")))
            first.cancel()
            assert "plan" in await others[0]
            assert "designs" in await last

    asyncio.run(line())


def test_requests_that_go_away_leave_the_line() -> None:
    """A full line turns a request away, and says when to come; when those who wait hang up, it is answered."""
    server = Server("--workers", "1")
    quick = "flops=1e20&memory=8GB"
    try:
        waiting = []
        for number in range(WAITING + 1):
            body = f"gpus=512xH100&days={60 + number}&memory=640GB"
            head = f"POST /api/answer HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: {len(body)}\r\n\r\n"
            waiting.append(socket.create_connection(("127.0.0.1", server.port)))
            waiting[-1].sendall((head + body).encode())
            if number == 0:
                time.sleep(1)  # it is taken by the worker
        time.sleep(1)
        status, headers, _ = server.ask("POST", "/api/answer", quick)
        assert (status, headers["retry-after"]) == (429, "1")
        for each in waiting:
            each.close()
        time.sleep(1)
        assert server.ask("POST", "/api/answer", quick)[0] == 200
    finally:
        server.close()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal on this system")
def test_a_search_that_is_left_ends_at_once() -> None:
    """A worker in the middle of a search leaves it when asked, and its next answer is right."""
    work = _Work()
    before = signal.signal(signal.SIGUSR1, work.cancel)
    try:
        timer = threading.Timer(1.0, cancel, (os.getpid(),))
        timer.start()
        assert work.answer("plan", asked(LONG)) == Failure("cancelled", False)
        timer.join()
        cancel(os.getpid())  # nothing runs: nothing happens
        assert "plan" in work.answer("plan", asked("flops=1e20&memory=8GB"))
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are kept on Linux alone")
def test_a_search_stays_within_its_memory() -> None:
    """A search that needs more than its worker may have says so in a sentence, and the pool goes on."""

    async def ask() -> None:
        async with Pool(1, most_bytes=250_000_000) as pool:
            assert await pool.ask("plan", asked("flops=1e24&memory=10TB")) == OUT_OF_MEMORY
            assert "plan" in await pool.ask("plan", asked("flops=1e19&memory=1GB&fix=num_experts%3D64"))

    asyncio.run(ask())


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")
@pytest.mark.slow
def test_serving_out_of_a_budget_of_gpus_fits_a_worker() -> None:
    """Tokens served out of the days of GPUs are asked again by a worker that looks no further, and answered whole."""
    query = "gpus=64xH100&days=30&memory=8x80GB&served=2T"

    async def run() -> None:
        async with Pool(1) as pool:
            found = await pool.ask("plan", asked(query), long=True)
        plan, cold = (json.loads(text) for text in (found["plan"], printed(asked(query).command)))
        assert {**plan, "provenance": None} == {**cold, "provenance": None}

    asyncio.run(run())


def test_a_worker_that_ends_is_replaced() -> None:
    """Whoever waits for a worker that is gone is told, and the next question is answered."""

    async def ask() -> None:
        async with Pool(1) as pool:
            task = asyncio.create_task(pool.ask("plan", asked(LONG), long=True))
            await asyncio.sleep(0.5)
            os.kill(pool.process_ids[0], signal.SIGTERM)
            found = await task
            assert isinstance(found, Failure)
            assert "ended unexpectedly" in found.sentence
            assert "plan" in await pool.ask("plan", asked("flops=1e20&memory=8GB"))

    asyncio.run(ask())


@pytest.mark.soak
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_many_questions_leave_nothing_behind() -> None:
    """200 questions in a row and then by 8 at once: no error, and memory stays within 2 GB and does not grow."""
    server = Server()
    try:
        rng = random.Random(7)

        def ask(number: int) -> int:
            query = f"flops={rng.uniform(1, 9.9):.2f}e{21 + number % 3}&memory={rng.randrange(16, 300)}GB"
            query += "&fix=num_experts%3D128" if number % 5 == 4 else ""
            while (status := server.ask("POST", "/api/answer", query)[0]) == 429:
                time.sleep(0.5)
            return status

        held = []
        for number in range(200):
            assert ask(number) in (200, 422)  # a fix may not fit
            held.append(resident_bytes(server.process.pid))
        assert max(held[150:]) < 1.25 * max(held[50:100])  # what is kept warm goes up and down
        with ThreadPoolExecutor(8) as users:
            assert set(users.map(ask, range(64))) <= {200, 422}
        assert resident_bytes(server.process.pid) < 2e9
        assert len(tree(server.process.pid)) <= 5
    finally:
        server.close()
