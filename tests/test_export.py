"""`moeplan export`: files that read back as the plan's model, flags that exist, and refusals with a reason."""

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
from moeplan.architecture.shape import Architecture
from moeplan.cli import cli
from moeplan.cost.training.parallelism import Layout, read_layout
from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.budget import Budget
from moeplan.plan.document import Plan
from moeplan.plan.export import TARGETS, export
from moeplan.plan.export.targets.megatron import model_args, stage_args
from moeplan.plan.planner import recommend
from moeplan.studies.inspection import inspect
from tests.exported import SHAPES, TINY, plan_of, with_layouts
from tests.published import MODELS

_LISTED = """
--num-layers --hidden-size --ffn-hidden-size --num-attention-heads --group-query-attention --num-query-groups
--kv-channels --seq-length --max-position-embeddings --swiglu --normalization --disable-bias-linear --qk-layernorm
--untie-embeddings-and-output-weights --position-embedding-type --num-experts --moe-router-topk --moe-ffn-hidden-size
--moe-shared-expert-intermediate-size --moe-layer-freq --moe-router-score-function --moe-router-enable-expert-bias
--moe-router-bias-update-rate --moe-router-load-balancing-type --moe-aux-loss-coeff --moe-router-dtype
--moe-grouped-gemm --moe-token-dispatcher-type --tensor-model-parallel-size --pipeline-model-parallel-size
--expert-model-parallel-size --expert-tensor-parallel-size --sequence-parallel --use-distributed-optimizer --lr
--global-batch-size --train-iters
"""
LISTED = _LISTED.split()
"""Flags of Megatron-LM that the exporter is built on."""
_MORE = """
--use-mcore-models --transformer-impl --vocab-size --make-vocab-size-divisible-by --add-qkv-bias --bf16
--context-parallel-size --micro-batch-size --recompute-granularity --recompute-method --recompute-num-layers
--multi-latent-attention --q-lora-rank --kv-lora-rank --qk-head-dim --qk-pos-emb-head-dim --v-head-dim --rope-type
--fp8-format --fp8-recipe --fp4-format --fp4-recipe
"""
MORE = _MORE.split()
"""Other flags of megatron/training/arguments.py that it may write: vocabulary, precision, latent attention."""
_RECIPE = """
--min-lr --lr-decay-style --lr-wsd-decay-style --lr-warmup-iters --lr-decay-iters --lr-wsd-decay-iters --adam-beta1
--adam-beta2 --adam-eps --weight-decay --clip-grad --hidden-dropout --attention-dropout --norm-epsilon
--init-method-std --rotary-base --no-rope-fusion --cross-entropy-loss-fusion --cross-entropy-fusion-impl
--overlap-grad-reduce --overlap-param-gather --tp-comm-overlap --moe-router-topk-scaling-factor --moe-permute-fusion
--moe-flex-dispatcher-backend --overlap-moe-expert-parallel-comm --num-virtual-stages-per-pipeline-rank
--mtp-num-layers --pipeline-model-parallel-layout --decoder-first-pipeline-num-layers --decoder-last-pipeline-num-layers
"""
RECIPE = _RECIPE.split()
"""Flags of a good run; all of them went through the parser and `validate_args` of Megatron-LM 0.20."""
LAYOUT = Layout(tp=2, pp=2, ep=8, dp=8)


def arguments(text: str) -> dict[str, str]:
    """Flags and values of an exported file."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {flag: value for flag, _, value in (line.partition(" ") for line in lines)}


def run(*args: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, list(args), prog_name="moeplan")


@pytest.mark.parametrize("name", SHAPES)
def test_hugging_face_reads_back_as_the_same_model(name: str, tmp_path: Path) -> None:
    """Exported to Hugging Face and inspected, every plan is the same architecture with the same total."""
    plan = plan_of(SHAPES[name])
    path = tmp_path / "config.json"
    path.write_text(export(plan, "hf"), encoding="utf-8")
    found = inspect(path)
    assert found.architecture == plan.architecture
    assert (found.not_counted, found.assumptions) == ((), ())
    assert found.total_params is not None
    assert found.total_params["with_embeddings"] == plan.architecture.total_params()


@pytest.mark.parametrize(
    "name, family",
    [
        ("gqa-2048", "Glm4Moe"),
        ("gqa-two-shared-768", "Glm4Moe"),
        ("gqa-no-shared-2048", "Qwen3Moe"),
        ("mla-4096", "DeepseekV3"),
        ("dense-2048", "Qwen3"),
        ("dense-plain-4096", "Llama"),
        ("dense-mla-2048", "DeepseekV3"),
    ],
)
def test_hugging_face_class(name: str, family: str) -> None:
    """The class follows from attention, shared experts and query-key norms; routing keys are those it needs."""
    config = json.loads(export(plan_of(SHAPES[name]), "hf"))
    assert config["architectures"] == [f"{family}ForCausalLM"]
    if family in ("Glm4Moe", "DeepseekV3"):
        assert (config["n_group"], config["topk_group"], config["num_nextn_predict_layers"]) == (1, 1, 0)
        assert isinstance(config["n_shared_experts"], int)
    if family == "Glm4Moe":
        assert config["rope_parameters"]["partial_rotary_factor"] == 1.0
        assert config["use_qk_norm"] is True


def test_shared_width_must_be_a_multiple_of_the_expert_width() -> None:
    """A shared expert of another width is no whole number of routed ones, so no class has it."""
    odd = dataclasses.replace(TINY, d_shared_expert=48)
    with pytest.raises(InfeasibleError, match=r"48 features .* multiple of the expert width 32"):
        export(plan_of(odd), "hf")


@pytest.mark.parametrize("name", ["gpt-oss-20b", "Qwen1.5-MoE-A2.7B", "OLMoE-1B-7B", "Snowflake-Arctic", "Grok-1"])
def test_what_no_class_expresses_is_refused(name: str) -> None:
    """A published model with biases, sinks, gates or other norms is refused with the field that stands against it."""
    for target in TARGETS:
        with pytest.raises(InfeasibleError):
            export(plan_of(MODELS[name]), target)


@pytest.mark.parametrize("name", SHAPES)
def test_megatron_flags_are_known_and_add_up(name: str) -> None:
    """Every flag exists, and the sizes in the arguments give exactly the plan's params."""
    shape = SHAPES[name]
    args = arguments(export(plan_of(shape), "megatron"))
    assert set(args) <= {*LISTED, *MORE, *RECIPE}
    assert megatron_params(args) == shape.total_params()


def megatron_params(args: dict[str, str]) -> int:
    """Params of the model that Megatron-LM builds from its arguments (GPTModel with grouped or latent attention)."""

    def size(flag: str) -> int:
        return int(args[f"--{flag}"])

    d, layers, heads = size("hidden-size"), size("num-layers"), size("num-attention-heads")
    if "--multi-latent-attention" in args:
        rank, rope, nope, value = (
            size(f) for f in ("kv-lora-rank", "qk-pos-emb-head-dim", "qk-head-dim", "v-head-dim")
        )
        q = int(args.get("--q-lora-rank", 0))
        queries = (d * q + q + q * heads * (nope + rope)) if q else d * heads * (nope + rope)
        attention = queries + d * (rank + rope) + rank + rank * heads * (nope + value) + heads * value * d
    else:
        width, kv = heads * size("kv-channels"), size("num-query-groups") * size("kv-channels")
        attention = 2 * d * width + 2 * d * kv + ("--qk-layernorm" in args) * 2 * size("kv-channels")
    moe = [0] * layers
    if "--num-experts" in args:
        moe = [int(x) for x in eval(args["--moe-layer-freq"])]
        assert len(moe) == layers
        experts = size("num-experts") * (3 * d * size("moe-ffn-hidden-size") + d)
        experts += 3 * d * int(args.get("--moe-shared-expert-intermediate-size", 0))
    blocks = sum(experts if has else 3 * d * size("ffn-hidden-size") for has in moe)
    vocabulary = size("vocab-size")
    multiple = size("make-vocab-size-divisible-by") * int(args.get("--tensor-model-parallel-size", 1))
    padded = -(-vocabulary // multiple) * multiple
    untied = "--untie-embeddings-and-output-weights" in args
    return blocks + layers * (attention + 2 * d) + d + padded * d * (1 + untied)


def test_megatron_shared_width_is_the_total() -> None:
    """Two shared experts of one width are one flag of twice that width."""
    shape = SHAPES["gqa-two-shared-2048"]
    args = arguments(export(plan_of(shape), "megatron"))
    assert int(args["--moe-shared-expert-intermediate-size"]) == 2 * shape.d_expert
    assert args["--moe-layer-freq"] == f"([0]*1+[1]*{shape.num_layers - 1})"
    none = arguments(export(plan_of(SHAPES["gqa-no-shared-2048"]), "megatron"))
    assert "--moe-shared-expert-intermediate-size" not in none


@pytest.mark.parametrize("layout", [None, LAYOUT, Layout(dp=64, ep=8, micro_batch=2)])
def test_megatron_trains_on_the_plans_tokens(layout: Layout | None) -> None:
    """Steps times batch times sequence are the plan's tokens, less than one step more; the rate is the plan's."""
    plan = plan_of(SHAPES["gqa-4096"])
    args = arguments(export(plan, "megatron", layout=layout))
    batch, steps, seq_len = (int(args[f"--{flag}"]) for flag in ("global-batch-size", "train-iters", "seq-length"))
    assert 0 <= steps * batch * seq_len - plan.design.tokens < batch * seq_len
    assert batch == pytest.approx(plan.training.batch_sequences, rel=0.05)
    assert float(args["--lr"]) == pytest.approx(plan.hyperparameters[0].learning_rate, rel=1e-3)
    assert seq_len == plan.request.seq_len
    if layout:
        assert batch % (layout.dp * layout.micro_batch) == 0
        assert int(args["--tensor-model-parallel-size"]) == layout.tp
        assert int(args["--expert-model-parallel-size"]) == layout.ep
        assert ("--sequence-parallel" in args) == (layout.tp > 1)


def test_megatron_takes_the_plans_fastest_layout() -> None:
    """Without a layout, the first that the plan lists is written; one that breaks a rule is refused."""
    listed = with_layouts(dataclasses.replace(SHAPES["gqa-4096"], num_layers=48, num_kv_layers=48))
    args = arguments(export(listed, "megatron"))
    option = listed.training.layouts[0]
    assert int(args["--pipeline-model-parallel-size"]) == option.pp
    assert int(args["--expert-model-parallel-size"]) == option.ep
    assert args["--recompute-granularity"] == option.recompute
    with pytest.raises(InfeasibleError, match="tp 7"):
        export(listed, "megatron", layout=Layout(tp=7))


def test_megatron_never_pads_the_vocabulary() -> None:
    """The divisor is the largest power of two that leaves the vocabulary as it is under tensor parallelism."""
    odd = dataclasses.replace(TINY, vocab_size=50_304)
    assert model_args(odd)["--make-vocab-size-divisible-by"] == "128"
    assert model_args(odd, tp=2)["--make-vocab-size-divisible-by"] == "64"
    with pytest.raises(InfeasibleError, match="vocab_size 50304 must be a multiple of tp 5"):
        model_args(odd, tp=5)


@pytest.mark.parametrize("name", ["mla-4096", "mla-512", "dense-2048", "dense-plain-4096"])
def test_maxtext_has_what_its_blocks_express(name: str) -> None:
    """Latent attention and dense models are written with their exact sizes."""
    shape = SHAPES[name]
    values = yaml.safe_load(export(plan_of(shape), "maxtext"))
    expected = {
        "base_emb_dim": shape.d_model,
        "base_num_decoder_layers": shape.num_layers,
        "base_num_query_heads": shape.num_heads,
        "base_num_kv_heads": shape.num_kv_heads,
        "base_mlp_dim": shape.d_ff,
        "vocab_size": shape.vocab_size,
        "logits_via_embedding": shape.tied_embeddings,
    }
    if shape.num_experts:
        expected |= {
            "decoder_block": "deepseek",
            "num_experts": shape.num_experts,
            "num_experts_per_tok": shape.num_active_experts,
            "base_moe_mlp_dim": shape.d_expert,
            "shared_experts": 1,
            "first_num_dense_layers": 1,
            "q_lora_rank": shape.q_lora_rank,
        }
    assert {key: values[key] for key in expected} == expected


def test_maxtext_with_experts_in_every_layer() -> None:
    """Without shared experts and dense layers, grouped queries are MaxText's qwen3_moe block."""
    shape = dataclasses.replace(SHAPES["gqa-no-shared-2048"], num_dense_layers=0, d_ff=0)
    values = yaml.safe_load(export(plan_of(shape), "maxtext"))
    assert (values["decoder_block"], values["base_mlp_dim"]) == ("qwen3_moe", shape.d_expert)


def test_a_plan_with_experts_alone_is_maxtexts() -> None:
    """Planned without shared experts and dense layers, the block's own weights are the plan's params to the last."""
    plan = recommend(Budget(1e21, "24GB", fix={"num_dense_layers": 0, "num_shared_experts": 0}))
    m = yaml.safe_load(export(plan, "maxtext"))
    assert m["decoder_block"] == "qwen3_moe"
    d, width, experts = m["base_emb_dim"], m["head_dim"], m["num_experts"]
    maps = 2 * d * width * (m["base_num_query_heads"] + m["base_num_kv_heads"])
    block = maps + 2 * width + 2 * d + experts * d + 3 * experts * d * m["base_moe_mlp_dim"]
    embeddings = m["vocab_size"] * d * (2 - m["logits_via_embedding"])
    assert embeddings + d + m["base_num_decoder_layers"] * block == plan.design.total_params
    # types.py: where every layer has experts, base_mlp_dim must equal base_moe_mlp_dim
    assert m["base_mlp_dim"] == m["base_moe_mlp_dim"]


def test_latent_attention_with_experts_in_every_layer_is_maxtexts() -> None:
    """Its deepseek block takes no first dense layer, and then its two widths must be equal."""
    plan = recommend(Budget(1e21, "24GB", attention="mla", fix={"num_dense_layers": 0}))
    m = yaml.safe_load(export(plan, "maxtext"))
    assert (m["decoder_block"], m["first_num_dense_layers"]) == ("deepseek", 0)
    assert m["base_mlp_dim"] == m["base_moe_mlp_dim"] == plan.design.d_expert


@pytest.mark.parametrize(
    "name, reason",
    [
        ("gqa-2048", "grouped-query attention and shared experts and first dense layers"),
        ("gqa-no-shared-2048", "grouped-query attention and first dense layers"),
        ("dense-mla-2048", "latent attention"),
    ],
)
def test_maxtext_refuses_with_the_reason(name: str, reason: str) -> None:
    """What no decoder block of MaxText has is refused, with what would work."""
    with pytest.raises(InfeasibleError, match=reason):
        export(plan_of(SHAPES[name]), "maxtext")


@pytest.mark.parametrize("name", SHAPES)
def test_torchtitan_module_names_the_version_and_the_sizes(name: str) -> None:
    """The module is Python for a named version, and its constants are the plan's sizes."""
    shape = SHAPES[name]
    text = export(plan_of(shape), "torchtitan")
    tree = ast.parse(text)
    assert "torchtitan 0.3.0" in (ast.get_docstring(tree) or "")
    names = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    fields = {
        "D_MODEL": shape.d_model,
        "NUM_EXPERTS": shape.num_experts,
        "D_EXPERT": shape.d_expert,
        "D_FF": shape.d_ff,
    }
    assert {name: ast.literal_eval(names[name]) for name in fields} == fields
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id.isupper()}
    assert used <= set(names)


def test_torchtitan_refuses_tied_latent_models() -> None:
    """torchtitan's DeepSeek-V3 has no tied embeddings, and needs a shared expert."""
    latent = SHAPES["mla-512"]
    with pytest.raises(InfeasibleError, match="--untied"):
        export(plan_of(dataclasses.replace(latent, tied_embeddings=True)), "torchtitan")
    with pytest.raises(InfeasibleError, match="num_shared_experts=1"):
        export(plan_of(dataclasses.replace(latent, num_shared_experts=0, d_shared_expert=0)), "torchtitan")


def test_layouts_are_read() -> None:
    """A layout is degrees by name; anything else is named."""
    assert read_layout("tp=2,pp=2,ep=8,dp=8") == LAYOUT
    assert read_layout("tp=2 recompute=full") == Layout(tp=2, recompute="full")
    for text in ("tp", "tp=2,tp=4", "width=2", "tp=two", "tp=0", "recompute=all"):
        with pytest.raises(UsageError):
            read_layout(text)


def test_command_line_offers_every_target() -> None:
    """The choices of --to, listed without importing the targets, are the targets."""
    option = next(parameter for parameter in cli.commands["export"].params if parameter.name == "target")
    assert list(option.type.choices) == list(TARGETS)  # type: ignore[attr-defined]


def test_unknown_targets_are_refused() -> None:
    """A target that does not exist raises a sentence with those that do."""
    with pytest.raises(UsageError, match="megatron"):
        export(plan_of(TINY), "nemo")


@pytest.mark.parametrize("target", TARGETS)
def test_command_line_writes_files(target: str, tmp_path: Path) -> None:
    """The command prints what the library returns, or writes it whole to a file."""
    plan = plan_of(SHAPES["mla-2048"])
    path, out = tmp_path / "plan.json", tmp_path / "out"
    path.write_text(plan.to_text(), encoding="utf-8")
    layout = Layout(dp=8) if target == "simumax" else None  # it simulates a layout, and the plan lists none
    wanted = export(plan, target, layout=layout)
    more = ["--layout", "dp=8"] if layout else []
    assert run("export", str(path), "--to", target, *more).stdout == wanted
    done = run("export", str(path), "--to", target, *more, "--output", str(out))
    assert (done.exit_code, done.stdout) == (0, "")
    assert out.read_text(encoding="utf-8") == wanted


def test_hyperparameters_of_another_law(tmp_path: Path) -> None:
    """--hyperparameters writes another law's learning rate and batch; what the others say stands beside either."""
    plan = plan_of(SHAPES["gqa-4096"])
    first, second = plan.hyperparameters
    path = tmp_path / "plan.json"
    path.write_text(plan.to_text(), encoding="utf-8")
    default, other = (
        run("export", str(path), "--to", "megatron", *more).stdout for more in ((), ("--hyperparameters", second.law))
    )
    assert default == run("export", str(path), "--to", "megatron", "--hyperparameters", first.law).stdout
    for text, own, rival in ((default, first, second), (other, second, first)):
        found = arguments(text)
        assert float(found["--lr"]) == pytest.approx(own.learning_rate, rel=1e-3)
        batch = int(found["--global-batch-size"]) * plan.request.seq_len
        assert batch == pytest.approx(own.batch_tokens, rel=0.01)
        said = f"learning rate and batch by {own.law} ({rival.law}: {rival.learning_rate:.3g}, "
        assert said in " ".join(text.replace("#", " ").split())
    refused = run("export", str(path), "--to", "hf", "--hyperparameters", "deepseek2024")
    assert refused.exit_code == 2
    assert "no learning rate and batch by 'deepseek2024'; it has those of tian2025 or steplaw2025" in refused.stderr


def test_command_line_refuses_in_one_sentence(tmp_path: Path) -> None:
    """A refusal is exit code 1, a broken file or argument exit code 2, each one sentence; nothing is written."""
    path, out = tmp_path / "plan.json", tmp_path / "out.yml"
    path.write_text(plan_of(SHAPES["gqa-2048"]).to_text(), encoding="utf-8")
    done = run("export", str(path), "--to", "maxtext", "--output", str(out))
    assert (done.exit_code, out.exists()) == (1, False)
    assert re.fullmatch(r"Error: MaxText .*\n", done.stderr)
    path.write_text("{}", encoding="utf-8")
    assert run("export", str(path), "--to", "hf").exit_code == 2
    assert run("export", str(path), "--to", "jax").exit_code == 2
    assert run("export", str(tmp_path / "none.json"), "--to", "hf").exit_code == 2


def test_steps_round_up() -> None:
    """A plan's tokens are never cut short."""
    plan: Plan = plan_of(TINY)
    for target in ("megatron", "torchtitan"):
        numbers: list[Any] = re.findall(r"(?:--train-iters|STEPS =) (\d+)", export(plan, target))
        batch: list[Any] = re.findall(r"(?:--global-batch-size|GLOBAL_BATCH_SIZE =) (\d+)", export(plan, target))
        assert int(numbers[0]) == math.ceil(plan.design.tokens / (int(batch[0]) * plan.request.seq_len))


def test_shapes_cover_every_kind() -> None:
    """The plans above are at least 20, from 0.1B to over 100B, dense, grouped and latent, with and without shared."""
    sizes = [shape.total_params() for shape in SHAPES.values()]
    assert len(sizes) >= 20
    assert min(sizes) < 2e8 < 1e11 < max(sizes)
    kinds = {(shape.attention, shape.is_dense, bool(shape.num_shared_experts)) for shape in SHAPES.values()}
    assert len(kinds) == 5
    assert all(isinstance(shape, Architecture) for shape in SHAPES.values())
    assert read_config(json.loads(export(plan_of(TINY), "hf"))).architecture == TINY


@pytest.mark.parametrize("layers, pp, first, last", [(31, 2, "16", "15"), (35, 4, "9", "8"), (32, 4, None, None)])
def test_megatron_is_told_of_unequal_stages(layers: int, pp: int, first: str | None, last: str | None) -> None:
    """Layers that do not divide over the stages are given for the first and the last stage."""
    shape = dataclasses.replace(SHAPES["gqa-4096"], num_layers=layers, num_kv_layers=layers)
    args = stage_args(Layout(pp=pp), shape)
    assert args.get("--decoder-first-pipeline-num-layers") == first
    assert args.get("--decoder-last-pipeline-num-layers") == last


@pytest.mark.parametrize(
    "layers, layout, pattern",
    [
        (29, Layout(pp=4), "Et*7|t*8|t*7|t*7L"),
        (51, Layout(pp=8), "Et*6|t*6|t*7|t*7|t*7|t*6|t*6|t*6L"),
        (27, Layout(pp=5), "Et*5|t*6|t*6|t*5|t*5L"),
        (31, Layout(pp=2, virtual_stages=2), "Et*8|t*8|t*8|t*7L"),
    ],
)
def test_megatron_is_told_of_every_stage(layers: int, layout: Layout, pattern: str) -> None:
    """Where stages differ in the middle, or virtual ones do, every chunk's layers are written, in model order."""
    shape = dataclasses.replace(SHAPES["gqa-4096"], num_layers=layers, num_kv_layers=layers)
    assert stage_args(layout, shape) == {"--pipeline-model-parallel-layout": pattern}
    assert sum(int(n) for n in re.findall(r"t\*(\d+)", pattern)) == layers


def test_megatron_refuses_what_its_arguments_do_not_set_up() -> None:
    """Optimizers that the arguments do not set up are refused in words."""
    plan = plan_of(SHAPES["gqa-4096"])
    muon = dataclasses.replace(plan, request=dataclasses.replace(plan.request, optimizer="muon"))
    with pytest.raises(InfeasibleError, match="optimizer muon"):
        export(muon, "megatron")


def test_the_next_layout_is_taken_where_the_target_cannot_say_the_fastest(tmp_path: Path) -> None:
    """Where the fastest layout splits experts, which torchtitan does not, the next one is written, and why is said."""
    plan = with_layouts(SHAPES["gqa-4096"])
    plan = dataclasses.replace(plan, request=dataclasses.replace(plan.request, train_precision="bf16"))
    fastest = dataclasses.replace(plan.training.layouts[0], tp=2, pp=1, cp=1, dp=16, ep=8, etp=2)
    also = dataclasses.replace(fastest, etp=4, ep=4, step_time=1.1)
    second = dataclasses.replace(fastest, pp=2, dp=8, etp=1, step_time=1.25)

    def listing(*layouts: Any) -> Plan:
        return dataclasses.replace(plan, training=dataclasses.replace(plan.training, layouts=layouts))

    path = tmp_path / "plan.json"
    path.write_text(listing(fastest, also, second).to_text(), encoding="utf-8")
    done = run("export", str(path), "--to", "torchtitan")
    assert (done.exit_code, "'pipeline_parallel_degree': 2" in done.stdout) == (0, True)
    assert re.fullmatch(
        r"Note: .* tp2 pp2 .* 1\.25 times .* tp2 pp1 .*: torchtitan 0\.3\.0 has no expert tensor parallelism\n",
        done.stderr,
    )
    for plain, target in ((listing(second, fastest), "torchtitan"), (listing(fastest, second), "megatron")):
        path.write_text(plain.to_text(), encoding="utf-8")
        assert run("export", str(path), "--to", target).stderr == ""
    with pytest.raises(InfeasibleError, match=r"no expert tensor parallelism.*--layout"):
        export(listing(fastest, also), "torchtitan")


def test_a_plan_that_contradicts_itself_is_not_exported() -> None:
    """A plan file whose architecture was changed by hand is refused, not exported with the old model's recipe."""
    plan = plan_of(SHAPES["gqa-4096"])
    changed = dataclasses.replace(
        plan, architecture=dataclasses.replace(plan.architecture, d_expert=64, d_shared_expert=64)
    )
    with pytest.raises(UsageError, match="plan anew"):
        export(changed, "hf")
