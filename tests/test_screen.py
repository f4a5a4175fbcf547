"""First screens: short at both widths, every number the JSON's, and more to be had by --full, --section and a pager."""

from __future__ import annotations

import dataclasses
import io
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import click
import pytest
from click.testing import CliRunner

from moeplan.cli import cli
from moeplan.cli.program import Failure
from moeplan.cost.devices import bundled, parse_gpus
from moeplan.errors import UsageError
from moeplan.fitting import fit
from moeplan.laws import load_law
from moeplan.laws.pooling import RANGE_ONLY
from moeplan.plan.budget import Budget
from moeplan.plan.budget_fields import make_budget
from moeplan.plan.document import Plan
from moeplan.plan.planner import recommend
from moeplan.report import output
from moeplan.report.blocks import Items, Paragraph, Section, Table, sections_named
from moeplan.report.comparison import comparison_sections
from moeplan.report.fitting import fit_sections
from moeplan.report.frontier import frontier_sections
from moeplan.report.inspection import inspection_sections
from moeplan.report.page.elements import pointed_at
from moeplan.report.screen.commands import asked_again, next_section
from moeplan.report.screen.comparison import comparison_screen
from moeplan.report.screen.fitting import fit_screen
from moeplan.report.screen.frontier import frontier_screen
from moeplan.report.screen.inspection import inspection_screen
from moeplan.report.screen.plan import plan_screen
from moeplan.report.screen.verification import outline_screen, verification_screen
from moeplan.report.screen.warnings import MOST, SIGN
from moeplan.report.sections import plan_sections
from moeplan.report.terminal import command_lines, terminal_text
from moeplan.report.text import Text
from moeplan.report.verification import verification_sections
from moeplan.report.words import words
from moeplan.studies.comparison import compare
from moeplan.studies.frontier import frontier
from moeplan.studies.inspection import inspect
from moeplan.studies.training_fit import TrainingRequest
from tests.sample import sample_plan
from tests.test_verify_estimate import studied

LINES = {100: 40, 80: 45}
"""Most lines of a first screen by columns."""
SAID = re.compile(
    r"[a-z0-9]+-\d:\d attention|--[a-z-]+ \d+|[89]0 %|k\+s/E|1 sequence|1,024 |\b[0-9a-f]{16}\b|(?:above|from|of) 1\b"
)
"""Numbers of the words themselves: options to type, the level of the intervals of speeds."""


def texts(sections: Sequence[Section]) -> Iterator[str]:
    """Every piece of text of a screen but the command to type."""
    for section in sections:
        yield section.title
        for block in section.blocks:
            if isinstance(block, Paragraph):
                yield "" if block.command else block.text
            elif isinstance(block, Items):
                yield from block.texts
            elif isinstance(block, Table):
                yield from block.columns
                for row in block.rows:
                    yield from row


def astray(sections: Sequence[Section], data: Any) -> list[str]:
    """Numbers that are not what the JSON has at their place, and digits that have no place in it."""
    found = []
    for text in texts(sections):
        bare, end = "", 0
        for start, number in text.numbers if isinstance(text, Text) else ():
            bare, end = f"{bare}{text[end:start]} ", start + len(number.text)
            there = pointed_at(data, number.path) if number.path else None
            if number.value != pytest.approx(len(there) if isinstance(there, (dict, list)) else there, rel=1e-9):
                found.append(f"{number.text} is {there} at {number.path!r} in {text!r}")
        bare = SAID.sub("", bare + text[end:])
        # Digits inside words are names: tian2025, 8x80GB, H100.
        found += [f"{digits} in {text!r}" for digits in re.findall(r"(?<![\w.,/-])\d[\d.,e-]*(?![\w])", bare)]
    return found


def hold(sections: Sequence[Section], data: Any) -> None:
    """A first screen is short and narrow at both widths, no line ends between a number and its %, a factor's x and its
    number or an option and its value, and every number of it is the JSON's."""
    for width, most in LINES.items():
        lines = terminal_text(sections, width).splitlines()
        assert len(lines) <= most, (width, len(lines))
        assert max(map(len, lines)) <= width
        stripped = "\n".join(line.strip() for line in lines)
        assert not re.search(r"\d\n%|\bx\n\d|--(section|concurrency|weights|law)\n", stripped), stripped
    assert astray(sections, data) == []


BUDGETS = {
    "flops": Budget("1e22", "80GB"),
    "days": Budget(gpus="16xH100", days=20, memory="2x80GB", price_per_gpu_hour=2.5),
    "untrainable": Budget("1e24", "8x80GB", gpus="8xH100"),
    "range": Budget("3e25", "16x141GB"),
    "unlimited": Budget("1e21", gpus="16xH100", memory_for=("training",)),
    "pattern": Budget("1e19", "8GB", attention="gdn-3:1", latent=4),
    "users": make_budget({"flops": "1e21", "memory": "80GB", "served": "2T", "serve_gpus": "2xH100", "mfu": 0.3}),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_plan_screen(name: str) -> None:
    """Whatever was asked, the first screen of a plan is short, and every number of it is the JSON's."""
    plan = recommend(BUDGETS[name], command="moeplan recommend --flops 1e22 --memory 80GB")
    hold(plan_screen(plan), plan.to_json())


def test_a_plan_made_by_hand_has_every_number_in_place() -> None:
    """Where every number of the plan differs, none of the screen's is another's."""
    plan = sample_plan()
    assert astray(plan_screen(plan), plan.to_json()) == []
    shown = " ".join(terminal_text(plan_screen(plan), 100).split())
    for text in ("11.2B-A1.35B mixture of experts", "457B tokens", "31 % MFU (27–36 %)", "21,265 at 3.25 an hour"):
        assert text in shown


def test_a_number_that_is_not_the_jsons_is_found() -> None:
    """The check above sees a number from elsewhere, and digits that someone typed."""
    plan = sample_plan()
    other = dataclasses.replace(plan, value_ratio=0.4321)
    assert any("43.2 %" in x for x in astray(plan_screen(other), plan.to_json()))
    assert astray([Section("", (Paragraph("about 17 of them"),))], {}) == ["17 in 'about 17 of them'"]


def test_at_most_three_warnings_the_most_harmful_first() -> None:
    """What cannot be trained is said before what serves one user, and that before laws out of range; no more than 3."""
    plan = sample_plan()
    nothing = dataclasses.replace(plan.training, layouts=(), layout_note="no layout fits")
    assert plan.serving.concurrency is not None
    one = dataclasses.replace(plan.serving, concurrency=dataclasses.replace(plan.serving.concurrency, most_sequences=1))
    bad = sample_plan(training=nothing, serving=one, value_ratio=0.1, binding=("memory",))
    rows = [row for section in plan_screen(bad) for block in section.blocks if isinstance(block, Table)
            for row in block.rows if row[0] == SIGN]  # fmt: skip
    assert len(rows) == MOST
    assert [row[1].split()[0] for row in rows[:2]] == ["Cannot", "Serves"]
    assert next(iter(bundled("warnings.yaml").section("plan"))) == "cannot_train"


def test_warnings_begin_and_end_alike() -> None:
    """Every warning is a sentence: a capital or a name first, a full stop or a sentence of its own last."""
    for kind in bundled("warnings.yaml"):
        ranked = bundled("warnings.yaml").section(kind)
        for name in ranked:
            assert re.match(r"[A-Z{]", ranked.text(name)), name
            assert re.search(r"[.}]$", ranked.text(name)), name


@pytest.mark.parametrize(
    "asked", [{"flops": "1e20", "memory": "20GB"}, {"gpus": "16xH100", "days": 3, "memory": "24GB"}]
)
def test_what_more_users_would_cost(asked: dict[str, Any]) -> None:
    """Where few sequences fit the first screen says what 64 would cost, and asking for 64 gives just that."""
    alone = recommend(Budget(**asked), alternatives=0)
    found, room = alone.if_concurrent, alone.serving.concurrency
    assert found is not None
    assert room is not None
    assert room.most_sequences < 64 == found.concurrency
    many = recommend(Budget(concurrency=64, **asked), alternatives=0)
    design = many.design
    assert (design.total_params, design.active_params, design.tokens) == (
        found.total_params, found.active_params, found.tokens)  # fmt: skip
    assert many.best_value / alone.best_value <= 1
    assert design.value / alone.best_value == pytest.approx(found.value_ratio, rel=1e-6)
    assert many.if_concurrent is None
    assert "--concurrency 64" in terminal_text(plan_screen(alone), 100)


def test_a_law_with_open_coefficients_is_warned_of_first(tmp_path: Any) -> None:
    """What a fitted law's runs leave open is said first by recommend, compare and frontier, but for what cannot be."""
    law, rows = load_law("ludziejewski2025").predicting("loss"), ["active_params,tokens,expansion_ratio,loss"]
    for size in (1e8, 2e8, 4e8, 8e8):
        for expansion in (4, 8, 16):  # always 20 tokens a param, which tells size from tokens nowhere
            values = {"active_params": size, "tokens": 20 * size, "expansion_ratio": expansion}
            rows.append(f"{size:g},{20 * size:g},{expansion},{law(*(values[name] for name in law.variables)):.4f}")
    (tmp_path / "runs.csv").write_text("\n".join(rows), encoding="utf-8")
    fitted = str(tmp_path / "law.yaml")
    made = run("fit", str(tmp_path / "runs.csv"), "--form", "ludziejewski2025", "--draws", "0", "--output", fitted)
    assert made.exit_code == 0
    budget, along = ("--flops", "1e18", "--memory", "4GB"), ("--memory", "2GB..4GB", "--points", "2")
    for asked in (SMALL, ("compare", *budget), ("frontier", *budget[:2], *along)):
        shown = run(*asked, "--law", fitted)
        first = next(line for line in shown.stdout.splitlines() if line.startswith(SIGN))
        assert "leave coefficients open" in first, asked
        assert "not identified" in run(*asked, "--law", fitted, "--section", "notes").stdout


def test_far_out_the_leverage_is_a_range_and_extrapolation_is_said_once() -> None:
    """Beyond two decades no point stands on the scale; what is extrapolated is said in one place."""
    plan = recommend(BUDGETS["range"])
    assert plan.leverage.pooled.decades_outside > RANGE_ONLY
    shown = terminal_text(plan_screen(plan), 100)
    assert shown.count("extrapolated") == 1
    drawing = next(line for line in shown.splitlines() if re.fullmatch(r" *[.o+-]{30,}", line))
    assert "+" not in drawing


# --- the other commands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("equal", ["overview", "memory", "loss"])
def test_comparison_screen(equal: str) -> None:
    """The MoE beside the first dense model, short, every number the JSON's, whatever is equal."""
    found = compare(Budget("1e19", "4GB"), equal=equal, command="moeplan compare --flops 1e19 --memory 4GB")
    sections = comparison_screen(found)
    hold(sections, found.to_json())
    assert str(sections[0].title).startswith(f"{found.models[0].total_params / 1e9:.3g}B-A")
    assert sections[0].blocks[-1].columns[1:3] == ("MoE", found.models[1].name)  # type: ignore[union-attr]


def test_a_pair_says_which_is_better() -> None:
    """Of two models the title says which one laws find better, and the rows by how much."""
    found = compare("olmoe-1b-7b", "mixtral-8x7b@2T", memory="2x80GB", command="moeplan compare a b")
    hold(comparison_screen(found), found.to_json())
    ahead = [ratio > 1 for ratio in {**found.versus[0].own_compute, **found.versus[0].quality}.values()]
    better = found.models[0 if 2 * sum(ahead) >= len(ahead) else 1].name
    assert f"{better} is better by" in comparison_screen(found)[0].title


@pytest.mark.parametrize(
    "name, asked",
    [
        ("deepseek-v3", {}),
        ("qwen3-30b-a3b", {"tokens": "36T", "memory": "80GB"}),
        ("hunyuan-large", {}),
        ("llama-3-8b", {"tokens": "15T"}),
        ("olmoe-1b-7b", {"training": TrainingRequest(gpus=parse_gpus("64xH100")), "memory": "24GB"}),
    ],
)
def test_inspection_screen(name: str, asked: dict[str, Any]) -> None:
    """A model with and without tokens, memory and GPUs, dense and not wholly counted: short, numbers the JSON's."""
    found = inspect(name, **asked)
    hold(inspection_screen(found, f"moeplan inspect {name}"), found.to_json())


@pytest.mark.parametrize(
    "asked", [{"memory": "4GB..16GB", "points": 40}, {"memory": "8GB", "over": "granularity", "points": 4}]
)
def test_frontier_screen(asked: dict[str, Any]) -> None:
    """A curve of many points over memory, or over a variable, is short, its numbers the JSON's."""
    found = frontier("1e19", laws=["zhao2025", "tian2025"], command="moeplan frontier --flops 1e19", **asked)
    hold(frontier_screen(found), found.to_json())


def test_verification_screens() -> None:
    """What a study found, with controls, and what it will run: short, numbers the JSON's."""
    found, _ = studied(1.5, controls=True)
    hold(verification_screen(found), found.to_json())
    hold(outline_screen(found.outline, "moeplan verify plan.json --dry-run"), found.outline.to_json())


def test_fit_screen(tmp_path: Any) -> None:
    """A fitted law with what the runs leave open, short, numbers the JSON's."""
    law = load_law("ludziejewski2025").predicting("loss")
    rows = ["active_params,tokens,expansion_ratio,loss"]
    for size in (1e8, 4e8, 1.6e9):
        for tokens in (1e9, 1e10, 4e10):
            for expansion in (1, 8, 32):
                values = {"active_params": size, "tokens": tokens, "expansion_ratio": expansion}
                loss = law(*(values[name] for name in law.variables))
                rows.append(f"{size:g},{tokens:g},{expansion},{loss:.4f}")
    (tmp_path / "runs.csv").write_text("\n".join(rows), encoding="utf-8")
    found = fit(
        tmp_path / "runs.csv", "ludziejewski2025", draws=20, command="moeplan fit runs.csv --form ludziejewski2025"
    )
    hold(fit_screen(found, "law.yaml"), found.to_json())


def test_fit_screen_says_why_there_are_no_intervals(tmp_path: Any) -> None:
    """Too few runs for intervals: beside the dashes the first screen says where the reason stands."""
    rows = [f"{n:g},{d:g},{2 + (1e8 / n) ** 0.3 + (1e9 / d) ** 0.4:.4f}" for n in (1e8, 4e8, 1e9) for d in (2e9, 2e10)]
    (tmp_path / "runs.csv").write_text("\n".join(["total_params,tokens,loss", *rows]), encoding="utf-8")
    command = ("fit", str(tmp_path / "runs.csv"), "--form", "additive_power_law", "--draws", "20")
    assert "There are no intervals; --full says why" in " ".join(run(*command).output.split())
    assert "too few runs for intervals: 6, and they hold from 15 on" in " ".join(run(*command, "--full").output.split())


def test_fit_screen_of_a_form_without_sizes_predicts(tmp_path: Any) -> None:
    """A law of compute alone says on its first screen what it predicts at the budget asked: 1.2 + 1e3*C^-.15."""
    rows = [f"{c:g},{1.2 + 1e3 * c**-0.15:.5f}" for c in (1e18, 3e18, 1e19, 3e19, 1e20, 3e20, 1e21)]
    (tmp_path / "runs.csv").write_text("\n".join(["train_flops,loss", *rows]), encoding="utf-8")
    plain = fit(tmp_path / "runs.csv", "compute_power_law", draws=0)
    hold(fit_screen(plain, None), plain.to_json())
    found = fit(tmp_path / "runs.csv", "compute_power_law", draws=0, at=[1e23])
    screen = " ".join(terminal_text(fit_screen(found, None), 100).split())
    assert f"1e23 FLOPs: loss {1.2 + 1e3 * 1e23**-0.15:.4g}, beyond the runs" in screen


def test_every_ranked_warning_is_one_that_a_screen_knows() -> None:
    """The lists of warnings are those of the six commands, each ranked and said once."""
    ranked = bundled("warnings.yaml")
    assert list(ranked) == ["plan", "comparison", "inspection", "frontier", "verification", "fit"]


def test_dense_models_with_another_attention_are_said() -> None:
    """Beside a hybrid the dense models have plain attention, which the first screen says; with GQA nothing is said."""
    for attention, said in (("gdn-3:1", True), ("gqa", False)):
        found = compare(Budget("1e19", "4GB", attention=attention))
        hold(comparison_screen(found), found.to_json())
        assert ("dense models have GQA in every layer" in terminal_text(comparison_screen(found), 120)) is said


def test_errors_on_a_terminal_end_lines_between_words() -> None:
    """A long error on a terminal is broken at spaces, never within an option; in a pipe it is one line."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    said = "a memory limit is missing; add --memory 80GB, as in: moeplan recommend --flops 1e22 --memory 80GB"
    shown, piped = Terminal(), io.StringIO()
    with mock.patch.dict("os.environ", COLUMNS="80"):
        Failure(said, 2).show(shown)
        Failure(said, 2).show(piped)
    lines = shown.getvalue().splitlines()
    assert " ".join(lines) == piped.getvalue().strip() == f"Error: {said}"
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80


# --- more than the screen -------------------------------------------------------------------------------------------


def run(*args: str, columns: int = 100) -> Any:
    """A command as on a terminal of so many columns."""
    return CliRunner().invoke(cli, list(args), prog_name="moeplan", env={"COLUMNS": str(columns)})


SMALL = ("recommend", "--flops", "1e18", "--memory", "4GB")


def test_full_is_the_whole_report_and_a_section_is_part_of_it() -> None:
    """--full prints every section; --section those named by a word of their title, in the report's order."""
    whole = run(*SMALL, "--full").stdout
    assert whole.startswith("Train a ")
    parts = run(*SMALL, "--section", "memory", "--section", "laws").stdout
    assert [line for line in parts.splitlines() if line and line[0] != " "] == ["Memory", "What the laws say"]
    assert all(line in whole.splitlines() for line in parts.splitlines())
    assert len(run(*SMALL).stdout.splitlines()) <= 40 < len(whole.splitlines())


def test_a_wrong_section_lists_the_names() -> None:
    """A name that no section has is refused with all that there are; JSON, which is whole, has no sections."""
    refused = run(*SMALL, "--section", "price")
    assert refused.exit_code == 2
    for name in ("model", "memory", "efficiency-leverage", "laws", "learning-rate-batch", "near-equal-choices"):
        assert name in refused.stderr
    assert "--section has no place beside it" in run(*SMALL, "--json", "--section", "laws").stderr


def test_sections_that_screens_name_are_there(tmp_path: Any) -> None:
    """Every --section NAME of a first screen and of its warnings is a section of that command's whole report."""
    budget = Budget("1e19", "4GB")
    compared, pair = compare(budget), compare("olmoe-1b-7b", "mixtral-8x7b@2T", command="moeplan compare a b")
    curves = [frontier("1e19", command="moeplan frontier", points=2, **x) for x in ({"memory": "4GB..8GB"},
              {"memory": "8GB", "over": "granularity"})]  # fmt: skip
    models = [inspect(name, tokens=tokens) for name, tokens in (("olmoe-1b-7b", "5T"), ("hunyuan-large", None))]
    (tmp_path / "config.json").write_text(
        '{"model_type": "mixtral", "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, '
        '"vocab_size": 1000, "intermediate_size": 1024}',
        "utf-8",
    )
    models.append(inspect(str(tmp_path / "config.json")))
    verified, _ = studied(1.5, controls=True)
    rows = [f"{n:g},{d:g},{2 + (1e8 / n) ** 0.3 + (1e9 / d) ** 0.4:.4f}" for n in (1e8, 4e8, 1e9, 2e9)
            for d in (2e9, 5e9, 2e10, 5e10)]  # fmt: skip
    (tmp_path / "runs.csv").write_text("\n".join(["total_params,tokens,loss", *rows]), "utf-8")
    fitted = fit(tmp_path / "runs.csv", "additive_power_law", draws=0, command="moeplan fit runs.csv")
    shown = {
        "plan": [(plan_screen(sample_plan()), plan_sections(sample_plan()))],
        "comparison": [(comparison_screen(x), comparison_sections(x)) for x in (compared, pair)],
        "inspection": [(inspection_screen(x, "moeplan inspect x"), inspection_sections(x)) for x in models],
        "frontier": [(frontier_screen(x), frontier_sections(x)) for x in curves],
        "verification": [(verification_screen(verified), verification_sections(verified))],
        "fit": [(fit_screen(fitted, None), fit_sections(fitted))],
    }
    for kind, pairs in shown.items():
        for screen, whole in pairs:
            for name in re.findall(r"--section ([a-z-]+)", " ".join(texts(screen))):
                assert sections_named(whole, [name]), (kind, name)
        every = [section for _, whole in pairs for section in whole]
        ranked = bundled("warnings.yaml").section(kind)
        for name in re.findall(r"--section ([a-z-]+)", " ".join(ranked.text(x) for x in ranked)):
            assert sections_named(every, [name]), (kind, name)


def test_names_of_sections_tell_them_apart() -> None:
    """Every section of a plan is found by its own name, alone."""
    sections = plan_sections(sample_plan())
    for section in sections[1:]:
        assert sections_named(sections, [section.name]) == [section]
    with pytest.raises(UsageError, match="section '' is none of model, "):
        sections_named(sections, [""])


def test_the_next_command_works_when_pasted() -> None:
    """The last lines are a command that a shell reads as one; asked, it gives the whole report."""
    for columns in (80, 100):
        shown = run(*SMALL, "--seq-len", "2048", "--fix", "num_shared_experts=1", columns=columns).stdout
        last = re.split(r"^Next.*?\n(?=  )", shown, flags=re.MULTILINE | re.DOTALL)[-1]
        parts = shlex.split(last.replace("\\\n", ""))
        assert parts[0] == "moeplan"
        assert parts[-1] == "--full"
        assert run(*parts[1:]).stdout.startswith("Train a ")


def test_a_long_command_is_broken_as_a_shell_goes_on() -> None:
    """No line is wider than asked, quoted words stay whole, and the shell reads the same words."""
    command = shlex.join(["moeplan", "recommend", "--law", "my own/law one.yaml", *["--fix", "granularity=8"] * 8])
    lines = command_lines(command, 60)
    assert max(map(len, lines)) <= 60
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)


def test_a_command_is_asked_again_without_its_files() -> None:
    """What was written and how it was shown is left out; a call from Python is no command line."""
    asked = "moeplan recommend --flops 1e22 --output 'my plan.json' --html=a.html --section laws --json"
    assert asked_again(asked, "--full") == "moeplan recommend --flops 1e22 --full"
    assert asked_again("recommend(Budget(1e22))") == ""
    assert next_section("") == []


def test_pager_only_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report longer than the terminal goes through a pager where there are keys; not in pipes, nor if --no-pager."""
    paged: list[str] = []
    monkeypatch.setattr(click, "echo_via_pager", lambda text, color: paged.append(text))
    sections = plan_sections(sample_plan())
    output.emit_sections(sections, pager=True)  # pytest's stdout is no terminal
    monkeypatch.setattr(output, "_has_keys", lambda: True)
    output.emit_sections(sections, pager=False)
    output.emit_sections(sections[:1], pager=True)
    assert paged == []
    output.emit_sections(sections, pager=True)
    assert len(paged) == 1
    assert "What the laws say" in paged[0]


def test_changes_follow_the_answer(tmp_path: Any) -> None:
    """--from says the answer first, then what changed, in a few rows, before the command to type next."""
    path = tmp_path / "plan.json"
    assert run(*SMALL, "--output", str(path)).exit_code == 0
    shown = run("recommend", "--from", str(path), "--memory", "1GB").stdout
    assert re.search(r"mixture of experts(.|\n)*Leverage(.|\n)*Changed since(.|\n)*Next", shown)
    table = shown[shown.index("Changed since") :]
    assert re.search(r"memory +4GB +1GB", table)
    assert re.search(r"quality \(V\) +\d+(\.\d)? % +\d+(\.\d)? %", table)
    assert len(shown.splitlines()) <= 40
    same = run("recommend", "--from", str(path)).stdout
    assert "Nothing: the plan is the same." in same
    assert Plan.from_json(recommend(Budget("1e18", "4GB")).to_json()).design == recommend(Budget("1e18", "4GB")).design


# --- words -----------------------------------------------------------------------------------------------------------


def test_the_glossary_is_short_and_its_words_are_shown() -> None:
    """At most 15 words, one meaning each, on one screen; quality and leverage are the first."""
    known = words()
    assert len(known) <= 15
    assert list(known)[:2] == ["quality (V)", "leverage (EL)"]
    shown = run("help", "words").stdout
    assert all(word in shown for word in known)
    assert len(shown.splitlines()) <= 45
    first = terminal_text(plan_screen(sample_plan()), 100)
    for word in ("Quality (V)", "Leverage", "MFU", "k+s/E", "by worst law"):
        assert word in first


def test_help_knows_commands_and_names_them() -> None:
    """help COMMAND is its --help, help alone the list of commands; an unknown topic is refused with those there are."""
    assert run("help", "compare").stdout == run("compare", "--help").stdout
    assert "recommend" in run("help").stdout
    refused = run("help", "wrds")
    assert (refused.exit_code, "there is words, and recommend" in refused.stderr) == (2, True)


def test_a_design_that_two_rules_take_is_one_row() -> None:
    """Near-equal choices differ from each other: what is best and lean stands once, marked where either is asked."""
    plan = sample_plan()
    best = next(found for found in plan.near_equal if found.rule == "best")
    same = tuple(
        dataclasses.replace(found, design=best.design) if found.rule == "lean" else found for found in plan.near_equal
    )
    for asked in ("best", "lean"):
        request = dataclasses.replace(plan.request, choose=asked)
        made = dataclasses.replace(plan, near_equal=same, request=request)
        (choices,) = (section for section in plan_screen(made) if section.title.startswith("Near-equal"))
        (table,) = choices.blocks
        assert isinstance(table, Table)
        names = [str(row[0]) for row in table.rows]
        assert "best and lean" in names
        assert "lean: fewer active" not in names
        assert [str(table.rows[at][0]) for at in table.strong] == ["best and lean"]
