"""Law files: every mistake is told with file, line and key; own laws are found; the package carries all of them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from moeplan.cost.inference_memory import InferenceSettings
from moeplan.cost.serving.demand import Demand
from moeplan.errors import LawError
from moeplan.laws import Law, law_names, load_law, read_law
from moeplan.laws.checks import compute_optimum, run_checks
from moeplan.laws.reader import read_yaml
from moeplan.plan.budget import Budget

ROOT = Path(__file__).resolve().parent.parent

GOOD = """\
schema: moeplan.law/1
name: mine
title: A law of mine
citation:
  authors: Me
  year: 2026
  title: My runs
  arxiv: "2601.01234"
digits: fitted to my runs

fits:
  loss:
    predicts: loss
    form: additive_power_law
    coefficients: {E: 1.7, A: 4.06e2, B: 1e3, alpha: 0.34, beta: 0.28}
    grade: {default: read, E: inferred}
    conventions: {total_params: non_embedding}
    domain: {tokens: [1e9, 1e12]}
    fixed: {activation_ratio: 1}
    family: six_total_params

tables:
  - name: points
    grade: read
    columns: [total_params, loss]
    rows:
      - [1e9, 2.5]

notes: [no]

checks:
  - says: a point
    fit: loss
    given: {total_params: 1e18, tokens: 1e18}
    expect: {loss: 1.7}
    within: {absolute: 0.1}
"""


def write(folder: Path, text: str | bytes, name: str = "mine.yaml") -> Path:
    """A file with `text` in `folder`."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def altered(old: str, new: str) -> str:
    """The good law with one place changed."""
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def error_of(path: Path) -> str:
    """What reading the law at `path` and running its checks complains about."""
    with pytest.raises(LawError) as caught:
        run_checks(read_law(path))
    return str(caught.value)


def test_the_good_law_is_good(tmp_path: Path) -> None:
    """The file that the tests below break is read and passes its check."""
    law = read_law(write(tmp_path, GOOD))
    assert [result.passed for result in run_checks(law)] == [True]
    assert law.fits["loss"].grade == "inferred"
    assert law.fits["loss"].grades["A"] == "read"


def test_numbers_are_numbers_and_words_are_words(tmp_path: Path) -> None:
    """1e18 and 4.06e2 without quotes are numbers, `no` stays a word, a quoted arXiv id stays text."""
    law = read_law(write(tmp_path, GOOD))
    assert law.fits["loss"].coefficients["A"] == 406
    assert law.fits["loss"].domain["tokens"] == (1e9, 1e12)
    assert law.checks[0]["given"]["tokens"] == 1e18
    assert law.notes == ("no",)
    assert law.citation.arxiv == "2601.01234"
    assert read_yaml("{a: 1, b: -.5, c: 1., d: +2E3, e: 1_000, f: 0x10, g: 12:30, h: true, i: ~, j: yes}", "f") == {
        "a": 1,
        "b": -0.5,
        "c": 1.0,
        "d": 2000.0,
        "e": "1_000",
        "f": "0x10",
        "g": "12:30",
        "h": True,
        "i": None,
        "j": "yes",
    }


COEFFICIENTS = "coefficients: {E: 1.7, A: 4.06e2, B: 1e3, alpha: 0.34, beta: 0.28}"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("notes: [no]", "notes: [no]\ntitle: Again", 30, ["title", "twice"]),
        (", beta: 0.28", ", beta: 0.28, beta: 0.3", 15, ["fits.loss.coefficients.beta", "twice"]),
        ("digits:", "digts:", 9, ["digts", "not a known key", "digits"]),
        ("    family:", "    famly:", 20, ["fits.loss.famly", "family"]),
        ("\n  arxiv:", "\n  doi:", 8, ["citation.doi", "arxiv"]),
        ("title: A law of mine\n", "", 1, ["lacks", "title"]),
        ("    predicts: loss\n", "", 13, ["fits.loss", "lacks", "predicts"]),
        ("beta: 0.28", "gamma: 0.28", 15, ["fits.loss.coefficients.gamma", "beta"]),
        (", beta: 0.28", "", 15, ["fits.loss.coefficients", "lacks", "beta"]),
        ("alpha: 0.34", 'alpha: "0.34"', 15, ["fits.loss.coefficients.alpha", "'0.34'", "number"]),
        ("alpha: 0.34", "alpha: big", 15, ["fits.loss.coefficients.alpha", "'big'", "number"]),
        ("alpha: 0.34", "alpha: true", 15, ["fits.loss.coefficients.alpha", "number"]),
        ("alpha: 0.34", "alpha: null", 15, ["fits.loss.coefficients.alpha", "number"]),
        ("alpha: 0.34", "alpha: nan", 15, ["fits.loss.coefficients.alpha", "nan"]),
        ("alpha: 0.34", "alpha: .inf", 15, ["fits.loss.coefficients.alpha", ".inf"]),
        ("alpha: 0.34", "alpha: 1e999", 15, ["fits.loss.coefficients.alpha", "1e999", "too large"]),
        ("alpha: 0.34", f"alpha: {'9' * 5000}", 15, ["fits.loss.coefficients.alpha", "too large"]),
        (COEFFICIENTS, "coefficients: 3", 15, ["fits.loss.coefficients", "3", "mapping"]),
        (COEFFICIENTS, "coefficients:", 15, ["fits.loss.coefficients", "mapping"]),
        (
            "form: additive_power_law",
            "form: additive",
            14,
            ["fits.loss.form", "'additive'", "additive_power_law", "routed"],
        ),
        ("form: additive_power_law", "form: saturated_expansion", 14, ["fits.loss.form", "saturated_expansion"]),
        ("predicts: loss", "predicts: perplexity", 13, ["fits.loss.predicts", "perplexity", "efficiency_leverage"]),
        ("grade: {default: read, E: inferred}", "grade: guessed", 16, ["fits.loss.grade", "guessed", "inferred"]),
        ("grade: {default: read, E: inferred}", "grade: {E: read}", 16, ["fits.loss.grade", "default"]),
        (
            "total_params: non_embedding",
            "total_params: all",
            17,
            ["conventions.total_params", "'all'", "with_embeddings"],
        ),
        ("total_params: non_embedding", "params: non_embedding", 17, ["conventions.params", "total_params"]),
        ("[1e9, 1e12]", "[1e12, 1e9]", 18, ["fits.loss.domain.tokens", "lowest"]),
        ("[1e9, 1e12]", "[1e9]", 18, ["fits.loss.domain.tokens", "lowest"]),
        ("[1e9, 1e12]", "1e9", 18, ["fits.loss.domain.tokens", "lowest"]),
        ("[1e9, 1e12]", "[low, high]", 18, ["fits.loss.domain.tokens", "lowest"]),
        ("family: six_total_params", "family: llama", 20, ["fits.loss.family", "llama", "six_total_params"]),
        ("    family:", "    dense_fit: other\n    family:", 20, ["fits.loss.dense_fit", "other", "loss"]),
        ("    family:", "    band: 0.5\n    family:", 20, ["fits.loss.band", "0.5", "at least 1"]),
        ("moeplan.law/1", "moeplan.law/2", 1, ["schema", "moeplan.law/2", "moeplan.law/1"]),
        ("name: mine", "name: my/law", 2, ["name", "my/law"]),
        ("year: 2026", "year: soon", 6, ["citation.year", "'soon'", "number"]),
        ('arxiv: "2601.01234"', "arxiv: 2601.01234", 8, ["citation.arxiv", "2601.01234", "text"]),
        ("- [1e9, 2.5]", "- [1e9]", 26, ["tables[0].rows", "2 numbers"]),
        ("notes: [no]", "notes: no", 29, ["notes", "'no'", "list"]),
        ("notes: [no]", "notes: &anchor [no]", 29, ["notes", "anchor"]),
        ("notes: [no]", "notes: [*mark]", 29, ["notes[0]", "alias"]),
        ("notes: [no]", "[a, b]: c", 29, ["key that is not text"]),
        ("notes: [no]", f"notes: {'[' * 50_000}{']' * 50_000}", 29, ["nested too deeply"]),
        ("title: A law of mine", "title: [", 5, ["not valid YAML"]),
        ("title: A law of mine", "\ttitle: A law of mine", 3, ["not valid YAML"]),
        ("    fit: loss", "    fit: los", 33, ["checks[0].fit", "'los'", "loss"]),
        ("    fit: loss", "    fit: loss\n    find: best", 34, ["checks[0].find", "'best'", "compute_optimum"]),
        ("    fit: loss", "    fit: loss\n    find: minimum", 32, ["checks[0]", "lacks", "over"]),
        (", tokens: 1e18}", "}", 34, ["checks[0].given", "lacks tokens"]),
        ("tokens: 1e18}", "tokens: many}", 34, ["checks[0].given.tokens", "'many'", "number"]),
        ("expect: {loss: 1.7}", "expect: {bits: 1.7}", 35, ["checks[0].expect.bits", "loss"]),
        ("within: {absolute: 0.1}", "within: {}", 36, ["checks[0].within", "relative"]),
    ],
)
def test_every_mistake_names_file_line_and_key(tmp_path: Path, old: str, new: str, line: int, words: list[str]) -> None:
    """A mistake in a law file is one sentence with the file, the line, the key, the value and what would work."""
    path = write(tmp_path, altered(old, new))
    message = error_of(path)
    assert message.startswith(f"{path}, line {line}: "), message
    assert all(word in message for word in words), message
    assert len(message) < 600
    assert "\n" not in message


@pytest.mark.parametrize(
    ("find", "words"),
    [
        ("find: minimum\n    over: {tokens: [1e12, 1e9]}", ["over.tokens", "lowest"]),
        ("find: minimum\n    over: {tokens: 3}", ["over.tokens", "lowest"]),
        ("find: minimum\n    over: {tokens: [1, 2], total_params: [1, 2]}", ["over", "one variable"]),
        ("find: compute_optimum\n    over: {total_params: [1e6, 1e9]}", ["given", "train_flops"]),
        ("find: compute_optimum\n    over: {total_params: [1e6, 1e9]}\n    choices: {a: 1}", ["choices.a", "list"]),
        ("find: dense_equivalent\n    over: {tokens: [1, 2]}", ["no dense counterpart"]),
        ("find: reduced", ["find", "additive_power_law"]),
        ("find: crossing\n    fits: [loss]", ["fits", "two"]),
        ("find: crossing\n    over: {tokens: [1, 2]}\n    fits: [loss, loss]", ["over", "no crossing"]),
    ],
)
def test_a_check_that_cannot_run_says_why(tmp_path: Path, find: str, words: list[str]) -> None:
    """A malformed check is the file's mistake, told like the others, and never a traceback."""
    path = write(tmp_path, altered("    fit: loss", f"    fit: loss\n    {find}"))
    message = error_of(path)
    assert message.startswith(f"{path}, line 3"), message
    assert all(word in message for word in words), message


def test_a_wrong_number_fails_its_check(tmp_path: Path) -> None:
    """A check whose number does not come out is a result that says so, with both numbers."""
    (result,) = run_checks(read_law(write(tmp_path, altered("expect: {loss: 1.7}", "expect: {loss: 2.7}"))))
    assert not result.passed
    assert result.expected == 2.7
    assert result.found == pytest.approx(1.7, abs=0.01)


def test_an_optimum_needs_a_family_and_its_own_choices() -> None:
    """A compute optimum is refused where the law has no family of models or the choices are not the family's."""
    with pytest.raises(LawError, match="no family"):
        compute_optimum(load_law("zhao2025").fits["loss"], 1e20, 1e6, 1e9, [{}])
    with pytest.raises(LawError, match="needs expansion_ratio, not none"):
        compute_optimum(load_law("ludziejewski2025").fits["loss"], 1e20, 1e6, 1e9, [{}])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["line 1", "empty"]),
        (b"# only a comment\n", ["line 1", "empty"]),
        (b"just a sentence", ["line 1", "mapping"]),
        (b"- a\n- b\n", ["line 1", "mapping"]),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", ["not UTF-8 text"]),
        (b"schema: a\0b", ["not text"]),
        (GOOD.encode() + b"---\n" + GOOD.encode(), ["second YAML document"]),
        (
            b"schema: moeplan.law/1\nname: a\ntitle: b\ncitation: {authors: c, year: 1, title: d}\ndigits: e\n",
            ["neither"],
        ),
    ],
)
def test_a_file_that_is_no_law(tmp_path: Path, content: bytes, words: list[str]) -> None:
    """Empty, binary and foreign files are refused in one sentence that names the file."""
    path = write(tmp_path, content)
    message = error_of(path)
    assert message.startswith(str(path))
    assert all(word in message for word in words), message


def test_an_unreadable_path(tmp_path: Path) -> None:
    """A path that does not exist, or is a folder, is named in the error."""
    assert "no such file" in error_of(tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    assert "is a directory" in error_of(tmp_path / "folder.yaml")


def test_aliases_cannot_blow_up_memory(tmp_path: Path) -> None:
    """Ten lines of nested aliases that stand for 10^30 items are refused at the first anchor."""
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 31))
    message = error_of(write(tmp_path, bomb))
    assert "line 1" in message
    assert "a0 is a YAML anchor or alias" in message
    assert "line 1" in error_of(write(tmp_path, "a: &a [*a]\n"))


# ---------------------------------------------------------------------------------------------------- finding laws


@pytest.mark.parametrize(
    ("name", "near"),
    [("zao2025", "zhao2025"), ("tian", "tian2025"), ("krajewski2024/moe", "moe-e64"), ("nothing like it", "known are")],
)
def test_unknown_law_names_the_nearest(name: str, near: str) -> None:
    """A mistyped law or fit is answered with the names it may have meant."""
    with pytest.raises(LawError, match=near):
        load_law(name)


def test_fit_by_name() -> None:
    """`law/fit` loads the law with that fit as its objective, under a name that loads it again."""
    law = load_law("krajewski2024/moe-e16")
    assert law.objective is law.fits["moe-e16"]
    assert load_law(law.full_name) == law
    assert load_law("krajewski2024").objective is not law.objective


@pytest.fixture
def own_laws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of own laws, named in the environment."""
    monkeypatch.setenv("MOEPLAN_LAWS", str(tmp_path))
    return tmp_path


def test_own_laws_are_found(own_laws: Path) -> None:
    """A law in the folder that MOEPLAN_LAWS names stands beside the bundled ones and loads by name."""
    bundled = set(law_names())
    write(own_laws, GOOD)
    assert set(law_names()) == bundled | {"mine"}
    assert load_law("mine").citation.authors == "Me"


def test_own_law_wins_over_a_bundled_one(own_laws: Path) -> None:
    """A file of the same name in the own folder replaces the bundled law."""
    write(own_laws, altered("name: mine", "name: zhao2025"), "zhao2025.yaml")
    assert load_law("zhao2025").citation.authors == "Me"


def test_own_law_has_its_files_name(own_laws: Path) -> None:
    """A law whose name is not its file's could not be found again, so it is refused."""
    path = write(own_laws, GOOD, "other.yaml")
    with pytest.raises(LawError, match="must be the file's own name 'other'") as caught:
        load_law("other")
    assert str(path) in str(caught.value)


def test_own_folder_must_be_a_folder(own_laws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MOEPLAN_LAWS that names no folder is told, not ignored."""
    monkeypatch.setenv("MOEPLAN_LAWS", str(own_laws / "none"))
    with pytest.raises(LawError, match="not a folder"):
        law_names()


def test_a_law_is_read_once_and_anew_when_its_file_changes(tmp_path: Path) -> None:
    """Laws of one text share their fits, which nobody can change; another text at the same path is another law."""
    path = write(tmp_path, GOOD)
    first = load_law(path)
    assert load_law(path).fits is first.fits
    assert load_law("tian2025").fits is load_law("tian2025").fits
    write(tmp_path, altered("authors: Me", "authors: Me again"))
    assert load_law(path).citation.authors == "Me again"
    assert first.citation.authors == "Me"


def test_a_law_by_path(tmp_path: Path) -> None:
    """A law file anywhere loads by its path, as text or Path."""
    path = write(tmp_path, GOOD)
    assert load_law(path) == load_law(str(path)) == dataclasses.replace(read_law(path), source=str(path))


def test_digest_is_of_the_bytes(tmp_path: Path) -> None:
    """The digest changes with any byte of the file, and with nothing else."""
    first = read_law(write(tmp_path, GOOD))
    assert first.digest == read_law(write(tmp_path, GOOD, "again.yaml")).digest
    assert first.digest != read_law(write(tmp_path, GOOD + "\n", "more.yaml")).digest


# ---------------------------------------------------------------------------------------------------- the package


@dataclass
class Built:
    """What a build of the checkout gives."""

    wheel: Path
    """The wheel, built from the sdist."""
    sdist: Path
    """The sdist."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist of a copy of the checkout, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("package")
    source, out = folder / "source", folder / "out"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "constraints.txt", "moeplan", "laws"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.exists():
            shutil.copy(path, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(wheel, sdist)


def law_files() -> set[str]:
    """The names of the checkout's law files."""
    return {path.name for path in (ROOT / "laws").glob("*.yaml")}


def test_wheel_holds_every_law(built: Built) -> None:
    """The wheel has every law file inside the package."""
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
    assert {f"moeplan/laws/bundled/{name}" for name in law_files()} <= names


def test_wheel_holds_every_file_of_the_package(built: Built) -> None:
    """Data and the parts of report pages travel in the wheel, each at its place."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "moeplan").rglob("*") if path.is_file()}
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
    assert {name for name in files if "__pycache__" not in name} <= names
    assert {f"moeplan/report/page/static/page.{kind}" for kind in ("html", "css", "js")} <= names


def test_sdist_holds_every_law(built: Built) -> None:
    """The sdist has every law file in its top-level `laws/`."""
    with tarfile.open(built.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"laws/{name}" for name in law_files()} <= names


PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import moeplan
from moeplan.laws import law_names, load_law
assert moeplan.__file__.startswith(sys.argv[1]), moeplan.__file__
assert moeplan.backtest(["tian2025"]).scores[0].equal
print(json.dumps({name: load_law(name).digest for name in law_names()}))
"""


@pytest.mark.parametrize("zipped", [False, True], ids=["unzipped", "zipped"])
def test_laws_load_from_the_wheel(built: Built, tmp_path: Path, zipped: bool) -> None:
    """From an installed wheel and a zipped one laws load byte for byte, the back-test runs, no files stay behind."""
    place = built.wheel
    if not zipped:
        place = tmp_path / "site"
        with zipfile.ZipFile(built.wheel) as wheel:
            wheel.extractall(place)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MOEPLAN_LAWS")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(place)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment | {"TMPDIR": str(temporary)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {law.name: law.digest for law in bundled_laws()}
    assert list(temporary.iterdir()) == []


def test_a_type_checker_sees_the_installed_package(built: Built, tmp_path: Path) -> None:
    """mypy reads the types of an installed wheel: of a plan's fields, and that a budget is no complex number."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("**/site-packages")
    with zipfile.ZipFile(built.wheel) as wheel:
        wheel.extractall(site)
    (tmp_path / "user.py").write_text(
        "from moeplan import Budget, recommend\n"
        "reveal_type(recommend(Budget('1e22', '80GB')).architecture.num_experts)\n"
        "Budget(1j, '80GB')\n",
        encoding="utf-8",
    )
    python = shutil.which("python", path=os.pathsep.join(str(tmp_path / "venv" / name) for name in ("bin", "Scripts")))
    options = ["--strict", "--python-executable", str(python), "--config-file", os.devnull, "user.py"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    said = [line.split(": ", 1)[1] for line in done.stdout.splitlines()[:-1]]
    assert said == [
        'note: Revealed type is "int"',
        'error: Argument 1 to "Budget" has incompatible type "complex"; expected "float | str"  [arg-type]',
    ], done.stdout


def test_a_budget_is_made_from_its_fields() -> None:
    """Its constructor, as type checkers see it, takes a budget's fields in order, then those of serving and demand."""
    (kind,) = ast.parse(inspect.getsource(Budget)).body
    (init,) = (node for node in ast.walk(kind) if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    arguments = [*init.args.args[1:], *init.args.kwonlyargs]
    own = [field.name for field in dataclasses.fields(Budget) if field.init]
    flat = [field.name for kind in (InferenceSettings, Demand) for field in dataclasses.fields(kind)]
    assert [argument.arg for argument in arguments] == own + flat


def bundled_laws() -> list[Law]:
    """Every law of the checkout."""
    return [read_law(path) for path in sorted((ROOT / "laws").glob("*.yaml"))]
