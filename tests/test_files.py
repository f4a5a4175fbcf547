"""Files are read within bounds, whatever stands behind a name, and written whole or not at all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.errors import UsageError
from moeplan.files import atomic_write, check_writable, outputs, read_json, read_source, read_text
from moeplan.laws import load_law


def _socket(path: Path) -> None:
    folder = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(folder)


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a directory"),
    "named pipe": (os.mkfifo, "it is a named pipe"),
    "socket": (_socket, "it is a socket"),
    "endless device behind a link": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "link to itself": (lambda path: path.symlink_to(path.name), "too many levels of symbolic links"),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    """Nothing is waited for and nothing endless is read: one sentence that names the path and what stands there."""
    make, sentence = NO_FILES[kind]
    path = tmp_path / "runs.csv"
    make(path)
    with pytest.raises(UsageError, match=rf"^{path}: cannot be read: .*{sentence}"):
        read_source(path)


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    """As many bytes as the limit are read; one more is refused with the limit, whatever size the file claims."""
    path = tmp_path / "plan.json"
    path.write_bytes(b"x" * 1000)
    assert read_source(path, largest=1000) == b"x" * 1000
    with pytest.raises(UsageError, match=r"is over 0\.000999 MB"):
        read_source(path, largest=999)
    os.truncate(path, 10**12)  # a terabyte of nothing
    with pytest.raises(UsageError, match="is over 64 MB"):
        read_source(path)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_the_mark_at_the_start_is_no_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Text reads the same with and without the byte order mark that some editors begin UTF-8 with."""
    path = tmp_path_factory.getbasetemp() / "marked.txt"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + text.encode())
        assert read_text(path) == (text.removeprefix("\ufeff") if not mark else text)


def test_json_says_what_it_is_once(tmp_path: Path) -> None:
    """A key that stands twice with different values is refused; one that says the same twice is not."""
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "a": 1}')
    assert read_json(path) == {"a": 1}
    path.write_text('{"a": 1, "a": 2}')
    with pytest.raises(UsageError, match="has the key 'a' twice"):
        read_json(path)


SCRIPT = """
import sys
from moeplan.files import atomic_write, outputs
with outputs({"--output": sys.argv[1]}), atomic_write(sys.argv[1]) as file:
    file.write("whole")
"""
READ = "import sys; from moeplan.files import read_text; print(read_text(sys.argv[1]), end='')"


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_stdout_is_a_place_to_write(name: str, into: str, tmp_path: Path) -> None:
    """/dev/stdout and its kin are written where they lead, be it a pipe or a file that the shell opened."""
    if name == "link":
        (tmp_path / "link").symlink_to("/dev/stdout")
    target = tmp_path / "out"
    with target.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, name], cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()},
            stdout=subprocess.PIPE if into == "pipe" else file, stderr=subprocess.PIPE, timeout=900,
        )  # fmt: skip
    assert done.stderr == b""
    assert (done.stdout if into == "pipe" else target.read_bytes()) == b"whole"
    assert {path.name for path in tmp_path.iterdir()} <= {"link", "out"}


def test_process_substitution_is_read_and_written(tmp_path: Path) -> None:
    """What bash makes of <(...) and >(...) is a file as any other."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHON": sys.executable, "READ": READ, "SCRIPT": SCRIPT}
    line = '"$PYTHON" -c "$READ" <(printf given); "$PYTHON" -c "$SCRIPT" >(cat > made); sleep 0.3; cat made'
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, timeout=900)
    assert (done.stdout, done.stderr) == (b"givenwhole", b"")


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    """An error in the middle, or a full disk, leaves the old file and no other; the disk is named."""
    path = tmp_path / "plan.json"
    path.write_text("old")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.writelines(["half", 2])  # type: ignore[list-item]
    assert (path.read_text(), [each.name for each in tmp_path.iterdir()]) == ("old", ["plan.json"])
    with (
        pytest.raises(UsageError, match="/dev/full: cannot be written: no space left on device"),
        atomic_write("/dev/full") as file,
    ):
        file.write("lost")


def test_outputs_are_told_apart_before_any_work(tmp_path: Path) -> None:
    """Two options on one path are refused; two on a stream that keeps nothing are not; a folder is no file."""
    one = str(tmp_path / "a")
    with (
        pytest.raises(UsageError, match="--output and --save are both"),
        outputs({"--output": one, "--save": f"{tmp_path}/./a"}),
    ):
        pass
    with outputs({"--output": "/dev/null", "--save": "/dev/null"}):
        pass
    with pytest.raises(UsageError, match="it is a folder"):
        check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_law_goes_to_a_pipe_as_a_plan_does(tmp_path: Path) -> None:
    """What has no name of its own takes the runs' one: fit --output /dev/stdout writes a law that is read again."""
    runs = tmp_path / "mine.csv"
    rows = [(n, n * t, 1.7 + 495.7 * n**-0.35 + 388 * (n * t) ** -0.28) for n in (5e7, 1e8, 4e8) for t in (10, 40)]
    runs.write_text("N,D,loss\n" + "".join(f"{n},{d},{x}\n" for n, d, x in rows))
    args = ["fit", str(runs), "--form", "additive_power_law", "--draws", "0", "--output", "/dev/stdout"]
    done = subprocess.run([sys.executable, "-m", "moeplan", *args], capture_output=True, text=True, check=True)
    law = tmp_path / "law.yaml"
    law.write_text(done.stdout[: done.stdout.index("mine: additive_power_law fitted to")], encoding="utf-8")
    assert load_law(str(law)).name == "mine"


def test_a_name_that_ends_like_a_folder_is_none(tmp_path: Path) -> None:
    """plan.json/ is no file, although a file may stand there."""
    with pytest.raises(UsageError, match="names a folder"):
        check_writable(f"{tmp_path}/plan.json/")
