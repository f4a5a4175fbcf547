"""A plan file is data, whoever sent it: no text in it runs, adds an argument, or reaches the terminal as a command."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import shlex
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from moeplan import records
from moeplan.architecture.attention.delta import GatedDeltaNet
from moeplan.architecture.blocks import AttentionRun, Blocks
from moeplan.architecture.shape import Architecture
from moeplan.cli import cli
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.document import Plan
from moeplan.plan.export import TARGETS, export, takes_layout
from moeplan.plan.export.job import job_of_plan
from moeplan.plan.export.sbatch import sbatch
from moeplan.texts import comment, is_control, printable
from tests.exported import SHAPES, plan_of
from tests.sample import sample_plan

PLANS = {target: plan_of(SHAPES["mla-2048"]) for target in TARGETS}
LAYOUT = Layout(dp=8)
HOSTILE = (
    '0.1.0\n"""\nimport os; os.system("touch PWNED")\n"""',
    "0.1.0'''\nimport os\n'''",
    '"""; import os #',
    "tian2025\n--load /evil --no-x #",
    "tian2025\r--load /evil",
    "tian2025\u2028--load /evil",
    "tian2025\x0b--load\x0c/evil\x85x",
    "x\nlearning_rate: 9\nbase_output_directory: /evil",
    "\\\nimport os",
    "# -*- coding: utf-7 -*-\n+AAo-import os",
    "\x1b]0;PWNED\x07\u202egnp\x9b31m",
    "$(touch PWNED) `touch PWNED` ; touch PWNED",
    "{__import__('os')} %s {0}",
)
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.sampled_from("\n\r\x0b\x0c\x1c\x85\u2028\u2029\"'\\#;:- ax{}$\x00\x1b\u202e\ud800"), max_size=30),
    st.text(max_size=30),
)


def with_texts(plan: Plan, text: str, device: str | None = None) -> Plan:
    """The plan with that text in every place that an export could show, past the reader's checks."""
    training = dataclasses.replace(plan.training, device=device or text)
    hyperparameters = tuple(dataclasses.replace(each, law=text) for each in plan.hyperparameters)
    provenance = dataclasses.replace(plan.provenance, version=text, command=text)
    return dataclasses.replace(
        plan, hyperparameters=hyperparameters, provenance=provenance, notes=(text,), training=training
    )


def statements(text: str) -> str:
    """What a Python module does, whatever its comments say."""
    return ast.dump(ast.parse(text))


def arguments(text: str) -> list[str]:
    """What `$(grep -v '^#' plan.args)` gives to a trainer, a line being what any reader may take for one."""
    return [line for line in text.splitlines() if not line.startswith("#")]


READERS: dict[str, Callable[[str], Any]] = {
    "aiconfigurator": arguments,
    "deepspeed": json.loads,
    "hf": json.loads,
    "maxtext": yaml.safe_load,
    "megatron": arguments,
    "megatron_bridge": statements,
    "sglang": arguments,
    "simumax": statements,
    "torchtitan": statements,
    "vllm": arguments,
}
"""What a trainer, an interpreter or a shell takes of each target's file."""


@settings(max_examples=200)
@given(texts)
def test_no_text_of_a_plan_leaves_its_comment(text: str) -> None:
    """Whatever stands as version, command, law or device, what is read is that of the harmless plan.

    aiconfigurator's command names the device: one that it does not know is refused.
    """
    assert set(READERS) == set(TARGETS)
    for target, read in READERS.items():
        plan = PLANS[target]
        layout = LAYOUT if takes_layout(target) else None
        known = plan.training.device if target == "aiconfigurator" else None
        assert read(export(with_texts(plan, text, known), target, layout=layout)) == read(
            export(plan, target, layout=layout)
        )
    with pytest.raises(InfeasibleError, match="aiconfigurator has no"):
        export(with_texts(PLANS["hf"], text, text or "?"), "aiconfigurator")


@given(st.text(min_size=1))
def test_no_file_name_adds_a_word_to_a_batch_file(name: str) -> None:
    """The name of the file of arguments is one word of the shell, whatever stands in it."""
    job = job_of_plan(PLANS["megatron"])
    line = sbatch(job, LAYOUT, name).split("\nargs=", 1)[1].split("\nhead=", 1)[0]
    assert shlex.split(line) == [name]


_SANDBOX = """
import json, sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

class Stub(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in ("torch", "torchtitan") else None
    def create_module(self, spec):
        module = MagicMock(name=spec.name, __path__=[], __spec__=spec)
        return module
    def exec_module(self, module):
        pass

def forbid(event, args):
    wants = event in ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect",
                      "os.remove", "os.rename", "shutil.rmtree", "ctypes.dlopen")
    if wants or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")):
        raise SystemExit(f"the module did {event} {args}")
    if event == "import" and running and args[0].split(".")[0] not in ("torch", "torchtitan", "functools"):
        raise SystemExit(f"the module imported {args[0]}")

sys.meta_path.insert(0, Stub())
modules, running = json.load(sys.stdin), False
sys.addaudithook(forbid)
for text in modules:
    code, names = compile(text, "plan.py", "exec"), {}
    running = True
    exec(code, names)
    names["model_spec"]()
    names.get("moeplan", list)()
    running = False
print(len(modules))
"""


def test_the_exported_module_does_nothing_but_describe_a_model(tmp_path: Path) -> None:
    """Run for real, with stubs of torch and torchtitan: no file, process, socket or import beyond the template's."""
    modules = [export(with_texts(PLANS["torchtitan"], text), "torchtitan") for text in HOSTILE]
    command = [sys.executable, "-I", "-S", "-c", _SANDBOX]
    done = subprocess.run(command, input=json.dumps(modules), capture_output=True, text=True, cwd=tmp_path, timeout=900)
    assert (done.stdout.strip(), done.stderr, list(tmp_path.iterdir())) == (str(len(HOSTILE)), "", [])
    guilty = json.dumps(['import os\nos.system("touch PWNED")\ndef model_spec(): pass'])
    done = subprocess.run(command, input=guilty, capture_output=True, text=True, cwd=tmp_path, timeout=900)
    assert done.returncode, "a module that runs a program passes this very check"


def text_fields(kind: Any, place: str) -> Iterator[tuple[str, bool]]:
    """Every text in a dataclass, and whether its type says what it may be."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is str or origin is Annotated:
        yield place, origin is Annotated
    elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):  # what a whole class shares is in no file
            yield from text_fields(hints[field.name], f"{place}.{field.name}")
        for below in kind.__subclasses__():  # a field may hold any of the kinds of its type
            yield from text_fields(below, f"{place}({below.__name__})")
    elif origin is not typing.Literal:
        for each in inner:
            yield from text_fields(each, place)


def test_every_text_of_a_plan_has_a_kind() -> None:
    """No field of a plan is any text at all: each is a line, a word, a version or a digest, or one of a few words."""
    fields = list(text_fields(Plan, "plan"))
    assert len(fields) > 40
    assert [place for place, known in fields if not known] == []


def test_no_other_name_stands_for_an_attention() -> None:
    """The attention of a hybrid's blocks is one of the known kinds; any other name is refused with its place."""
    run = AttentionRun(GatedDeltaNet(num_key_heads=2, num_value_heads=4, key_head_dim=64, value_head_dim=64), (0,))
    data: Any = records.to_json(run)
    assert records.from_json(AttentionRun, data) == run
    names: tuple[Any, ...] = ("", "\x1b[0m", "gated-delta-net", None, ["gqa"], {})
    for name in names:
        data["attention"]["kind"] = name
        with pytest.raises(
            UsageError, match=r"^attention\.kind is .*, must be one of compressed, .*gated_delta_net, gqa, "
        ):
            records.from_json(AttentionRun, data)
    with pytest.raises(UsageError, match=r"^extra_params\[0\]\[0\] is 'a\\nb', must be a word$"):
        records.from_json(Blocks, records.to_json(Blocks(extra_params=(("a\nb", 3),))))


def leaves(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all texts in JSON, keys included (as the place of their value with None behind it)."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        if isinstance(data, dict):
            yield (*place, key, None)
        yield from leaves(value, (*place, key))
    if isinstance(data, str):
        yield place


SAMPLE = sample_plan().to_json()
PLACES = list(leaves(SAMPLE))


@settings(max_examples=300)
@given(st.sampled_from(PLACES), texts.filter(lambda text: any(map(is_control, text))))
def test_no_control_character_is_read_from_a_plan(place: tuple[Any, ...], text: str) -> None:
    """A line break or a control code in any text or key of a plan file is refused with its place."""
    data: Any = copy.deepcopy(SAMPLE)
    *way, last = place
    inside = data
    for key in way[:-1] if last is None else way:
        inside = inside[key]
    if last is None:
        inside[text] = inside.pop(way[-1])
    else:
        inside[last] = text
    with pytest.raises(UsageError):
        Plan.from_json(data)


@pytest.mark.parametrize("target", PLANS)
@pytest.mark.parametrize(
    ("change", "place"),
    [
        (("provenance", "version"), "provenance.version"),
        (("hyperparameters", 0, "law"), "hyperparameters[0].law"),
        (("provenance", "grid_digest"), "provenance.grid_digest"),
        (("training", "layout_note"), "training.layout_note"),
    ],
)
def test_a_manipulated_plan_is_refused_on_one_line(
    change: tuple[Any, ...], place: str, target: str, tmp_path: Path
) -> None:
    """`moeplan export` of a plan whose text holds code ends with 2 and a sentence that names the place."""
    data = PLANS[target].to_json()
    inside: Any = data
    for key in change[:-1]:
        inside = inside[key]
    inside[change[-1]] = HOSTILE[0]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    done = CliRunner().invoke(cli, ["export", str(path), "--to", target], prog_name="moeplan")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert place in done.stderr


@given(st.text())
def test_printable_text_is_one_visible_line(text: str) -> None:
    """No control code survives, what is printable stays as it is, and a second pass changes nothing."""
    shown = printable(text)
    assert not any(map(is_control, shown))
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text
    assert len(comment(text).splitlines()) == 1


def test_plans_that_are_made_here_are_read_again() -> None:
    """The checks refuse nothing that a plan of this version holds, with names and paths as people have them."""
    request = dataclasses.replace(sample_plan().request, laws=("/tmp/Ärger mit Gesetzen/law (2).yaml/loss",))
    plan = dataclasses.replace(sample_plan(), request=request)
    assert Plan.from_json(json.loads(plan.to_text())) == plan
    assert isinstance(plan.architecture, Architecture)
