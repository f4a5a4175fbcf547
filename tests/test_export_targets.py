"""What each export target writes besides the shape, other designs of a plan, existing models, and the batch file."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from moeplan.architecture.hf.config import read_config
from moeplan.cli import cli
from moeplan.cost.devices import parse_gpus
from moeplan.cost.training.fastest import Trainer
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput.settings import load_software
from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.budget import Budget
from moeplan.plan.candidate import alternative, candidate
from moeplan.plan.document import Plan
from moeplan.plan.existing import read_model
from moeplan.plan.export import TARGETS, export, exported
from moeplan.plan.export.job import SOFTWARE, job_of_model, job_of_plan
from moeplan.plan.export.recipe import items, recipe
from moeplan.plan.export.sbatch import sbatch
from moeplan.plan.export.targets.aiconfigurator import known_shape
from moeplan.plan.export.targets.megatron_bridge import model_fields
from moeplan.plan.planner import recommend
from tests.exported import SHAPES, plan_of
from tests.published import MODELS
from tests.test_export import arguments

LAYOUT = Layout(tp=2, pp=2, ep=8, dp=8)


def run(*args: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, list(args), prog_name="moeplan")


def flags(text: str) -> dict[str, str]:
    """Flags and values of a shell command of one flag a line."""
    found: list[tuple[str, str]] = re.findall(r"^ +(--[\w-]+)(?: ([^\\\n]*?))?(?: \\)?$", text, re.MULTILINE)
    return dict(found)


def constants(text: str) -> dict[str, Any]:
    """Names at the head of a Python module with their values."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper()
    }


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A real plan with alternatives, on GPUs."""
    return recommend(Budget("1e20", "24GB", gpus="16xH100"), alternatives=2)


@pytest.mark.parametrize(
    ("precision", "flags"),
    [
        ("bf16", {}),
        ("fp8", {"--fp8-format": "hybrid", "--fp8-recipe": "tensorwise"}),
        ("mxfp8", {"--fp8-format": "e4m3", "--fp8-recipe": "mxfp8"}),
        ("nvfp4", {"--fp4-format": "e2m1", "--fp4-recipe": "nvfp4"}),
    ],
)
def test_what_was_planned_in_a_precision_trains_in_it(precision: str, flags: dict[str, str], plan: Plan) -> None:
    """Megatron's targets get the plan's precision by the names of its own arguments (TransformerConfig.fp8, fp4); of
    every other one that trains it is said that it does not."""
    job = dataclasses.replace(job_of_plan(plan), train_precision=precision)
    written = arguments(export(job, "megatron"))
    assert {name: value for name, value in written.items() if name.startswith(("--fp8", "--fp4"))} == flags
    fields = constants(export(job, "megatron_bridge"))["LAYOUT"]
    assert {name for name in fields if name.startswith(("fp8", "fp4"))} == {
        name.removesuffix("-format").lstrip("-").replace("-", "_") for name in flags
    }
    said = [note for note in exported(job, "torchtitan", layout=Layout(dp=16, ep=8)).notes if "trains in bf16" in note]
    assert bool(said) == bool(flags)


def test_routers_agree() -> None:
    """Every target with a sigmoid router scales weights to sqrt(k), as the proxies of verify do; Kimi K2 has 2.827."""
    shape = SHAPES["mla-4096"]
    k = shape.num_active_experts
    job = plan_of(shape)
    written = [
        float(arguments(export(job, "megatron"))["--moe-router-topk-scaling-factor"]),
        float(json.loads(export(job, "hf"))["routed_scaling_factor"]),
        float(yaml.safe_load(export(job, "maxtext"))["routed_scaling_factor"]),
        constants(re.sub(r"(?m)^ACTIVATION_CHECKPOINT.*$", "", _plain(export(job, "torchtitan"))))["ROUTE_SCALE"],
        constants(export(job, "megatron_bridge"))["MODEL"]["moe_router_topk_scaling_factor"],
    ]
    assert written == [pytest.approx(math.sqrt(k), rel=1e-5)] * 5
    assert math.sqrt(8) == pytest.approx(2.827, abs=2e-3)


def _plain(text: str) -> str:
    """A module without the lines that are no literals (WEIGHT, LINEAR, ...)."""
    return "\n".join(line for line in text.splitlines() if not re.match(r"(WEIGHT|LINEAR|EXPERTS|NORM) =", line))


def test_one_active_expert_keeps_its_score() -> None:
    """With one active expert of several the weight is the score: nothing is divided, nothing multiplied by sqrt(1)."""
    shape = dataclasses.replace(SHAPES["mla-4096"], num_active_experts=1)
    assert json.loads(export(plan_of(shape), "hf"))["norm_topk_prob"] is False
    assert "--moe-router-topk-scaling-factor" not in arguments(export(plan_of(shape), "megatron"))


@pytest.mark.parametrize("target", ["megatron", "torchtitan", "maxtext", "deepspeed"])
def test_the_table_of_the_docs_is_what_is_written(target: str) -> None:
    """Every name that the recipe's table gives a target stands in its file, with the item's number where it has one."""
    layout = None if target == "deepspeed" else Layout(dp=16, ep=8)
    text = export(plan_of(SHAPES["mla-2048"]), target, layout=layout)
    softmax = dataclasses.replace(SHAPES["gqa-no-shared-2048"], num_dense_layers=0, d_ff=0)
    text += export(plan_of(softmax), target, layout=layout)
    for name, item in items().items():
        if target not in item.names:
            continue
        own = item.names[target]
        assert own.rpartition(".")[2] in text, name
        if item.value is not None and name not in ("warm-up steps", "least learning rate"):
            value = re.escape(f"{item.value:g}")
            assert re.search(rf"(?<![\d.]){value}(?:\.0)?(?!\d)", text) or f"{item.value}" in text, name


def test_the_software_is_what_layouts_are_timed_with() -> None:
    """Dispatcher and overlap are those of the software that a `Trainer` times a plan's layouts with."""
    assert Trainer(gpus=parse_gpus("8xH100"), batch=8).software == load_software(SOFTWARE)


@pytest.mark.parametrize(
    "layout, dispatcher, overlap, connections",
    [
        (Layout(dp=16, ep=8), "flex", True, 32),
        (Layout(dp=16), "alltoall", False, 1),
        (Layout(dp=16, ep=8, recompute="full"), "flex", False, 1),
        (Layout(pp=2, dp=8, ep=8), "flex", False, 1),
        (Layout(pp=2, dp=8, ep=8, virtual_stages=2), "flex", True, 32),
    ],
)
def test_megatron_overlaps_what_it_can(layout: Layout, dispatcher: str, overlap: bool, connections: int) -> None:
    """Rows travel beside other work where Megatron-LM allows it; the environment follows."""
    text = export(plan_of(SHAPES["gqa-1024"]), "megatron", layout=layout)
    args = arguments(text)
    assert args["--moe-token-dispatcher-type"] == dispatcher
    assert ("--overlap-moe-expert-parallel-comm" in args) == overlap
    assert f"# environment: CUDA_DEVICE_MAX_CONNECTIONS={connections}\n" in text


def test_a_schedule_is_whole() -> None:
    """Warm-up, constant rate and a decay over a tenth of the steps fit into the run, however short it is."""
    for tokens in (10_000_000, 500_000_000_000):
        made = plan_of(SHAPES["gqa-512"])
        short = dataclasses.replace(made, design=dataclasses.replace(made.design, tokens=tokens))
        chosen = recipe(job_of_plan(short))
        assert 1 <= chosen.warmup_steps <= max(1, 0.05 * chosen.steps + 1)
        assert chosen.decay_steps == max(1, round(0.1 * chosen.steps))
        assert chosen.least_learning_rate == pytest.approx(chosen.learning_rate / 10, rel=1e-3)


def test_a_batch_without_gpus_divides() -> None:
    """Without a layout the batch is a multiple of a power of two, within 1 % of the law's."""
    for sequences in (1, 7, 97, 1_749, 10_007):
        made = plan_of(SHAPES["gqa-512"])
        asked = dataclasses.replace(made, training=dataclasses.replace(made.training, batch_sequences=sequences))
        batch = recipe(job_of_plan(asked)).batch
        assert abs(batch - sequences) <= 0.01 * sequences
        assert sequences < 1_000 or batch % 8 == 0


@pytest.mark.parametrize("layout", [LAYOUT, Layout(pp=2, virtual_stages=2, ep=4, dp=8, micro_batch=2)])
def test_interleaved_stages_get_whole_rounds(layout: Layout) -> None:
    """Virtual stages deal micro-batches in rounds of pp, so that their number is a multiple of it."""
    batch = recipe(job_of_plan(plan_of(SHAPES["gqa-1024"])), layout).batch
    rounds, left = divmod(batch, layout.dp * layout.micro_batch)
    assert left == 0
    assert layout.virtual_stages == 1 or rounds % layout.pp == 0


def test_no_shared_expert_of_no_width() -> None:
    """No class has latent attention without shared experts: it is refused, not built with 0 features."""
    none = dataclasses.replace(SHAPES["mla-2048"], num_shared_experts=0, d_shared_expert=0)
    with pytest.raises(InfeasibleError, match="num_shared_experts=1"):
        export(plan_of(none), "hf")
    mixtral = dataclasses.replace(SHAPES["gqa-no-shared-2048"], num_dense_layers=0, d_ff=0, qk_norm="none")
    config = json.loads(export(plan_of(mixtral), "hf"))
    assert config["architectures"] == ["MixtralForCausalLM"]
    assert read_config(config).architecture == mixtral


def test_positions_reach_the_served_context() -> None:
    """A server may ask for every position of the plan's context, longer than the training sequences."""
    made = plan_of(SHAPES["gqa-2048"])
    assert made.request.context > made.request.seq_len
    assert json.loads(export(made, "hf"))["max_position_embeddings"] == made.request.context


@pytest.mark.parametrize("target, tp, length, seqs", [
    ("vllm", "--tensor-parallel-size", "--max-model-len", "--max-num-seqs"),
    ("sglang", "--tp-size", "--context-length", "--max-running-requests"),
])  # fmt: skip
def test_serve_commands_have_the_plans_numbers(target: str, tp: str, length: str, seqs: str) -> None:
    """Devices, context, sequences, dtypes and memory are those that the plan was made for."""
    made = plan_of(SHAPES["gqa-1024"])
    request = dataclasses.replace(
        made.request, memory="4x80GB", context=16_384, concurrency=32, weight_dtype="fp8", kv_dtype="fp8", headroom=0.2
    )
    made = dataclasses.replace(made, request=request, memory=dataclasses.replace(made.memory, num_devices=4))
    text = export(made, target)
    found = flags(text)
    assert (found[tp], found[length], found[seqs]) == ("4", "16384", "32")
    assert (found["--dtype"], found["--quantization"]) == ("bfloat16", "fp8")
    assert found["--kv-cache-dtype"].startswith("fp8")
    assert "0.8" in found.values()
    assert ("--enable-expert-parallel" in found) == (target == "vllm")
    assert found.get("--ep-size", "4") == "4"
    three = dataclasses.replace(made, memory=dataclasses.replace(made.memory, num_devices=3))
    with pytest.raises(InfeasibleError, match="8 heads do not divide over 3 devices"):
        export(three, target)


@pytest.mark.parametrize("name", ["gqa-2048", "gqa-two-shared-1024", "gqa-no-shared-2048", "mla-2048", "dense-2048"])
def test_aiconfigurator_is_asked_of_equal_work(name: str) -> None:
    """The config in the script is of a class that it knows, with the plan's weights and products but for the router."""
    shape = SHAPES[name]
    text = export(plan_of(shape), "aiconfigurator")
    config = json.loads(text.split("<<'JSON'\n", 1)[1].split("\nJSON\n", 1)[0])
    assert config["architectures"][0] in ("Qwen3MoeForCausalLM", "DeepseekV3ForCausalLM", "Qwen3ForCausalLM")
    stand_in = known_shape(shape)
    assert read_config(config).architecture == stand_in
    more = stand_in.num_experts - shape.num_experts
    router = shape.num_moe_layers * more * shape.d_model
    assert stand_in.total_params() - router == shape.total_params()
    assert flags(text)["--system"] == "h200_sxm"


def test_simumax_simulates_the_plans_step() -> None:
    """Model and layout are the plan's; the micro-batches of a step make its batch."""
    made = plan_of(SHAPES["gqa-1024"])
    found = constants(export(made, "simumax", layout=LAYOUT))
    strategy, model, batch = found["STRATEGY"], found["MODEL"], recipe(job_of_plan(made), LAYOUT).batch
    assert strategy["micro_batch_size"] * strategy["micro_batch_num"] * LAYOUT.dp == batch
    assert (strategy["world_size"], strategy["ep_size"], model["expert_num"]) == (LAYOUT.num_gpus, 8, 16)
    with pytest.raises(InfeasibleError, match="--layout"):
        export(made, "simumax")


@pytest.mark.parametrize("name", ["gqa-2048", "mla-2048", "dense-2048"])
def test_the_bridges_fields_say_what_the_arguments_say(name: str) -> None:
    """Field by field the provider's model is that of Megatron-LM's arguments, which have the plan's params."""
    shape = SHAPES[name]
    args = arguments(export(plan_of(shape), "megatron"))
    renamed = {"num_experts": "num_moe_experts", "norm_epsilon": "layernorm_epsilon"}
    fields = model_fields(shape, plan_of(shape).request.seq_len)
    compared = 0
    for flag, text in args.items():
        field = renamed.get(flag[2:].replace("-", "_"), flag[2:].replace("-", "_"))
        if text and field in fields and isinstance(fields[field], (int, float)):
            assert float(text) == pytest.approx(float(fields[field]), rel=1e-5), flag  # type: ignore[arg-type]
            compared += 1
    assert compared >= 10
    assert constants(export(plan_of(shape), "megatron_bridge"))["TRAIN"]["train_iters"] == int(args["--train-iters"])


@pytest.mark.parametrize("layout", [Layout(dp=16, ep=8), Layout(tp=2, dp=8, cp=2), Layout(pp=2, dp=8, micro_batch=2)])
def test_maxtexts_batch_is_the_plans(layout: Layout) -> None:
    """Axes multiply to the devices, and the batch of all devices and accumulations is the recipe's."""
    shape = dataclasses.replace(SHAPES["mla-1024"], num_layers=13, num_kv_layers=13)
    values = yaml.safe_load(export(plan_of(shape), "maxtext", layout=layout))
    axes = [value for name, value in values.items() if re.fullmatch(r"(ici|dcn)_\w+_parallelism", name)]
    assert math.prod(axes) == layout.num_gpus
    batch = values["per_device_batch_size"] * layout.num_gpus * values["gradient_accumulation_steps"]
    assert batch == recipe(job_of_plan(plan_of(shape)), layout, layout.pp).batch
    assert values["lr_schedule_type"] == "wsd"
    if layout.pp > 1:
        assert values["num_pipeline_microbatches"] % layout.pp == 0


@pytest.mark.parametrize(
    "target, layout, reason",
    [
        ("torchtitan", Layout(tp=2, etp=2, dp=8), "no expert tensor parallelism"),
        ("maxtext", Layout(tp=2, etp=2, dp=8), "expert tensor parallelism"),
        ("maxtext", Layout(dp=4, tp=2, ep=8), "ep 8 must divide dp 4"),
        ("maxtext", Layout(pp=4, dp=4), "equal stages"),
        ("deepspeed", Layout(tp=2, dp=8), "--layout dp=16"),
        ("simumax", Layout(tp=2, dp=8), "latent attention over tp"),
    ],
)
def test_what_a_target_cannot_do_is_refused(target: str, layout: Layout, reason: str) -> None:
    """A degree that a trainer does not have is refused with what would work, never dropped."""
    with pytest.raises(InfeasibleError, match=reason):
        export(plan_of(SHAPES["mla-2048"]), target, layout=layout)


def test_alternatives_are_exported_whole(plan: Plan, tmp_path: Path) -> None:
    """An alternative is planned again: its params, tokens and own learning rate; the command writes the same."""
    found = alternative(plan, 2)
    assert found.design.total_params == plan.alternatives[1].total_params
    assert found.design.tokens == plan.alternatives[1].tokens
    path = tmp_path / "plan.json"
    path.write_text(plan.to_text(), encoding="utf-8")
    done = run("export", str(path), "--to", "hf", "--alternative", "2")
    assert done.stdout == export(found, "hf")
    assert read_config(json.loads(done.stdout)).architecture == found.architecture


def test_any_design_is_exported(plan: Plan, tmp_path: Path) -> None:
    """A candidate keeps the plan's request, laws and memory, with the variables that are fixed besides."""
    found = candidate(plan, {"num_experts": 32})
    assert found.architecture.num_experts == 32
    assert found.request.laws == plan.request.laws
    assert found.request.memory == plan.request.memory
    path = tmp_path / "plan.json"
    path.write_text(plan.to_text(), encoding="utf-8")
    done = run("export", str(path), "--to", "megatron", "--fix", "num_experts=32")
    assert arguments(done.stdout)["--num-experts"] == "32"


def test_existing_models_are_exported() -> None:
    """A published model keeps its exact shape, with the laws' learning rate and batch for its tokens."""
    model = read_model("qwen3-30b-a3b")
    job = job_of_model(model, 10**12)
    args = arguments(export(job, "megatron"))
    steps, batch, length = (int(args[f"--{name}"]) for name in ("train-iters", "global-batch-size", "seq-length"))
    assert 0 <= steps * batch * length - 10**12 < batch * length
    assert int(args["--num-experts"]) == MODELS["Qwen3-30B-A3B"].num_experts
    assert read_config(json.loads(export(job, "hf"))).architecture == model.architecture
    unknown = dataclasses.replace(model, tokens=None)
    with pytest.raises(UsageError, match="--tokens"):
        export(job_of_model(unknown), "megatron")


@pytest.mark.parametrize(
    "args, sentence",
    [
        (["--alternative", "9"], "no alternative 9; it lists 1 to 2"),
        (["--alternative", "0"], "no alternative 0"),
        (["--alternative", "1", "--fix", "G=8"], "give one"),
        (["--fix", "experts"], "NAME=VALUE"),
        (["--fix", "widgets=3"], "unknown design variable"),
        (["--tokens", "1T"], "a plan has its own"),
        (["--sbatch", "x"], "--to megatron and --output"),
        (["--layout", "tp=2"], "no place in hf"),
        (["--hyperparameters", "nobody"], "by 'nobody'"),
    ],
)
def test_mistakes_are_one_sentence(args: list[str], sentence: str, plan: Plan, tmp_path: Path) -> None:
    """Every wrong value of a flag ends with exit code 2 and what would work; nothing is written."""
    path = tmp_path / "plan.json"
    path.write_text(plan.to_text(), encoding="utf-8")
    done = run("export", str(path), "--to", "hf", *args)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence in done.stderr


def test_what_a_trainer_does_not_do_is_said(tmp_path: Path) -> None:
    """transformers never updates the correction bias: said for classes that have one, of no other."""
    for name, said in (
        ("gqa-2048", True),
        ("mla-2048", True),
        ("gqa-no-shared-2048", False),
        ("dense-mla-2048", False),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(plan_of(SHAPES[name]).to_text(), encoding="utf-8")
        done = run("export", str(path), "--to", "hf")
        assert done.exit_code == 0
        assert ("e_score_correction_bias" in done.stderr) == said, name
        assert done.stderr.count("\n") == int(said)


def test_options_of_a_plan_are_refused_for_a_model() -> None:
    """A published model has no alternatives, and tokens that are no number or too few are refused."""
    for args in (["--alternative", "1"], ["--fix", "G=8"], ["--tokens", "many"], ["--tokens", "1"]):
        done = run("export", "qwen3-30b-a3b", "--to", "hf", *args)
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_the_batch_file_starts_the_arguments(plan: Plan, tmp_path: Path) -> None:
    """Nodes times GPUs are the layout's, the environment is set, and the file of arguments is named."""
    path, args, batch = tmp_path / "plan.json", tmp_path / "plan.args", tmp_path / "plan.sbatch"
    path.write_text(plan.to_text(), encoding="utf-8")
    done = run("export", str(path), "--to", "megatron", "--output", str(args), "--sbatch", str(batch))
    assert done.exit_code == 0, done.stderr
    text = batch.read_text(encoding="utf-8")
    assert ("--nodes=2\n" in text, "--gpus-per-node=8\n" in text, f"args={args}" in text) == (True, True, True)
    env = re.findall(r"CUDA_DEVICE_MAX_CONNECTIONS=(\d+)", args.read_text(encoding="utf-8") + text)
    assert len(set(env)) == 1
    job = job_of_plan(plan)
    with pytest.raises(UsageError, match="--layout"):
        sbatch(job, None, "a")
    with pytest.raises(UsageError, match="12 GPUs are no whole number"):
        sbatch(job, Layout(dp=12), "a")
    wide = dataclasses.replace(job, device="GB200 (per GPU)")
    assert "--gpus-per-node=4\n" in sbatch(wide, Layout(dp=16), "a")


def test_every_target_is_tried_with_every_optimizer() -> None:
    """Muon is set up by no target that trains, so that each refuses a plan whose memory is counted for it."""
    made = plan_of(SHAPES["mla-2048"])
    muon = dataclasses.replace(made, request=dataclasses.replace(made.request, optimizer="muon"))
    for target in ("megatron", "megatron_bridge", "torchtitan", "deepspeed"):
        assert target in TARGETS
        with pytest.raises(InfeasibleError, match="optimizer muon"):
            export(muon, target)
