"""`moeplan inspect`: the numbers of existing models, what the laws say of them, and the report."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moeplan.architecture import published as models
from moeplan.architecture.published import find_model, published_models
from moeplan.architecture.shape import Architecture
from moeplan.cli import cli
from moeplan.cost.inference_memory import InferenceSettings
from moeplan.errors import UsageError
from moeplan.report.inspection import inspection_sections, model_list_sections
from moeplan.report.markdown import markdown_text
from moeplan.report.terminal import terminal_text
from moeplan.studies.inspection import Inspection, inspect
from moeplan.studies.law_evaluation import evaluate_laws
from moeplan.units import MemoryLimit
from tests.make_hf_configs import FOLDER
from tests.published import MODELS, ROWS
from tests.sample import sample_plan


def run(*args: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, list(args), prog_name="moeplan", env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def olmoe() -> Inspection:
    """OLMoE-1B-7B as it was trained, judged by the laws."""
    return inspect("olmoe-1b-7b", tokens="5.1T")


@pytest.mark.parametrize("name", MODELS)
def test_bundled_shapes_are_the_published_ones(name: str) -> None:
    """Every published model is bundled with exactly the shape that its exact counts belong to."""
    bundled = published_models()[name]
    if not bundled.not_counted:
        assert bundled.architecture == MODELS[name]
    assert bundled.confidence in ("high", "medium")
    assert bundled.source


def test_bundled_totals_are_those_of_real_classes() -> None:
    """A bundled model with a real class and nothing uncounted has exactly its class' params."""
    checked = 0
    for model in published_models().values():
        if model.class_params and not model.not_counted:
            assert model.architecture.total_params() == model.class_params
            checked += 1
    assert checked == 51


@pytest.mark.parametrize(
    "name, total, active, tokens",
    [
        ("DeepSeek-V4-Flash", 284_325_869_015, 13_793_261_015, 32e12),
        ("GLM-5", 743_911_199_232, 41_784_709_632, 28.5e12),
        ("MiMo-V2-Flash", 308_778_768_832, 15_445_924_288, 27e12),
        ("Trinity-Nano", 6_120_003_328, 1_023_923_968, 10e12),
        ("Nemotron-3-Nano", 31_577_937_344, 3_580_073_408, 25e12),
        ("Nemotron-3-Super", 120_668_687_360, 12_770_216_960, 25e12),
        ("Nemotron-3-Ultra", 549_308_968_960, 56_058_818_560, 20e12),
        ("Qwen3-Next-80B-A3B", 79_674_391_296, 3_874_929_408, 15e12),
        ("Kimi-Linear-48B-A3B", 49_122_675_072, 3_484_453_248, 5.7e12),
        ("LFM2-8B-A1B", 8_339_929_856, 1_557_740_288, 12e12),
    ],
)
def test_hybrids_are_counted_exactly(name: str, total: int, active: int, tokens: float) -> None:
    """Totals are those of the real classes on the meta device (transformers 5.23), tokens the publications'."""
    model = published_models()[name]
    assert model.architecture.total_params() == total
    assert model.architecture.active_params() == active
    assert model.training_tokens == tokens


def test_bundled_totals_are_near_the_model_cards() -> None:
    """Totals lie within 5 % of what the makers say, where these count embeddings."""
    without_embeddings = {"Ling-mini-beta", "Ling-Dense-6.1B"}
    for model in published_models().values():
        if not model.not_counted and model.name not in without_embeddings and not model.name.startswith("FLAME"):
            assert model.architecture.total_params() == pytest.approx(model.card_total, rel=0.05), model.name


@pytest.mark.parametrize("name", ["DeepSeek-V3", "deepseek-v3", "deepseek v3", "deepseek-ai/DeepSeek-V3", "DEEPSEEKV3"])
def test_models_are_found_by_any_writing(name: str) -> None:
    """Case, spaces, hyphens and the repository's owner do not matter."""
    assert find_model(name).name == "DeepSeek-V3"


def test_names_are_distinct() -> None:
    """No two bundled models answer to one name."""
    plain = [models._plain(name) for name in published_models()]
    assert len(set(plain)) == len(plain)


def test_unknown_names_suggest_near_ones() -> None:
    """A name that is nothing names what it is not, and the nearest models."""
    with pytest.raises(UsageError, match="deepseek-v3"):
        inspect("deepsek-v3")
    with pytest.raises(UsageError, match="no such file"):
        inspect("nowhere/config.json")


def test_numbers_of_deepseek_v3() -> None:
    """Counts, ratios, FLOPs and memory of DeepSeek-V3 are the published ones."""
    found = inspect("deepseek-v3")
    counts = ROWS["DeepSeek-V3"]["counts"]
    assert found.total_params == {
        "with_embeddings": counts["total"],
        "without_input_embedding": counts["total"] - counts["embed"],
        "non_embedding": counts["non_embedding_total"],
    }
    assert found.active_params == {
        "with_embeddings": counts["active"],
        "without_input_embedding": counts["active_no_input_embed"],
        "non_embedding": counts["non_embedding_active"],
    }
    shape = found.shape
    assert (shape.G, shape.activation_ratio, shape.shared_ratio, shape.granularity) == (9, 8 / 256, 1 / 9, 7)
    assert shape.expansion_ratio == 257 / 9
    assert found.flops_per_token is not None
    assert found.flops_per_token * 14.8e12 == pytest.approx(3.616e24, rel=0.005)
    assert found.memory is not None
    assert found.memory.kv_bytes_per_token == 70_272
    assert found.memory.weight_bytes == 2 * counts["total"]
    assert (found.mtp_layers, found.planned_tokens) == (1, 14.8e12)
    assert found.mtp_params == pytest.approx(11.5e9, rel=0.01)
    assert found.judgement is None


def test_a_file_a_folder_and_a_name_agree(tmp_path: Path) -> None:
    """The config.json of a model, its folder and its bundled name give the same numbers."""
    path = tmp_path / "config.json"
    path.write_bytes((FOLDER / "glm-4.5-air.json").read_bytes())
    by_file, by_folder, by_name = inspect(path), inspect(tmp_path), inspect("glm-4.5-air")
    for field in ("architecture", "total_params", "active_params", "shape", "memory", "flops_per_token"):
        assert getattr(by_file, field) == getattr(by_folder, field) == getattr(by_name, field), field


def test_a_plan_is_read_as_its_architecture(tmp_path: Path) -> None:
    """A plan file is inspected at its own sequence length, and its tokens are offered."""
    plan = sample_plan()
    path = tmp_path / "plan.json"
    path.write_text(plan.to_text(), encoding="utf-8")
    found = inspect(path)
    assert (found.kind, found.architecture, found.seq_len) == ("plan", plan.architecture, plan.request.seq_len)
    assert found.planned_tokens == plan.design.tokens
    assert found.total_params is not None
    assert found.total_params["with_embeddings"] == plan.architecture.total_params()


def test_serving_settings_count() -> None:
    """Context, concurrency and dtypes change memory, dtypes what long sequences take, and nothing else."""
    plain = inspect("mixtral-8x7b")
    served = inspect("mixtral-8x7b", serving=InferenceSettings("fp8", "fp8", 32768, 4))
    assert plain.memory is not None
    assert served.memory is not None
    assert served.memory.by_group["kv_cache"] == plain.memory.by_group["kv_cache"] * 16 // 2
    assert served.memory.weight_bytes < plain.memory.weight_bytes
    assert plain.long_sequences is not None
    assert served.long_sequences is not None
    for mine, theirs in zip(served.long_sequences.sequences, plain.long_sequences.sequences, strict=True):
        assert mine.cache_bytes == theirs.cache_bytes / 2
    without = {"memory": None, "long_sequences": None}
    assert dataclasses.replace(served, **without) == dataclasses.replace(plain, **without)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name, model in published_models().items() if model.not_counted])
def test_hybrids_have_what_is_certain_and_no_total(name: str) -> None:
    """A model with uncounted parts has no total, no FLOPs, no memory; ratios and other groups stay."""
    found = inspect(name)
    assert found.not_counted
    for field in ("architecture", "total_params", "active_params", "flops_per_token", "memory", "active_param_ratio"):
        assert getattr(found, field) is None, field
    assert "attention" not in found.params_by_group
    row = found.shape
    expected = published_models()[name].architecture
    assert found.params_by_group["routed_experts"] == (
        row.num_moe_layers * row.num_experts * 3 * expected.d_model * expected.d_expert
    )
    with pytest.raises(UsageError, match="not counted"):
        inspect(name, tokens="1T")


def test_laws_judge_a_trained_model(olmoe: Inspection) -> None:
    """With tokens, leverage is what predict says, and no law finds the model better than its own optimum."""
    judged = olmoe.judgement
    assert judged is not None
    assert olmoe.flops_per_token is not None
    assert judged.train_flops == pytest.approx(5.1e12 * olmoe.flops_per_token)
    assert judged.leverage is not None
    assert judged.leverage.low < judged.leverage.efficiency_leverage < judged.leverage.high
    assert {opinion.law for opinion in judged.leverage.others} >= {"abnar2025", "clark2022", "ludziejewski2025"}
    assert [law.law for law in judged.laws if law.role == "objective"] == [
        "tian2025", "zhao2025", "ludziejewski2025", "abnar2025",
    ]  # fmt: skip
    for law in judged.laws:
        assert law.efficiency is not None
        assert 0 < law.efficiency <= 1
        assert law.optimum is not None
        assert law.compute is not None
        assert law.compute <= judged.train_flops * 1.001


def test_the_recommendation_is_no_worse(olmoe: Inspection) -> None:
    """What moeplan would have chosen fits the model's own memory and is worth at least as much."""
    judged = olmoe.judgement
    assert judged is not None
    assert judged.recommended is not None
    assert judged.value_ratio is not None
    assert judged.recommended_value_ratio is not None
    assert judged.recommended_value_ratio >= judged.value_ratio
    # more KV heads than a plan's take the rest of the memory
    assert judged.recommended.total_params <= 1.05 * (olmoe.total_params or {})["with_embeddings"]
    means = [law.compute for law in judged.laws if law.role == "objective"]
    mean = math.exp(sum(math.log(x) for x in means if x) / len(means))
    assert judged.value_ratio == pytest.approx(mean / judged.train_flops)


def test_a_plan_is_as_good_as_it_says() -> None:
    """Inspecting a design that moeplan chose, at its own budget, finds the value that the plan has."""
    from moeplan import Budget, recommend

    plan = recommend(Budget("1e20", "24GB"), alternatives=0)
    judged = evaluate_laws(plan.architecture, plan.design.tokens, memory=MemoryLimit(24 * 10**9))
    assert judged.value_ratio == pytest.approx(plan.value_ratio, rel=1e-3)
    assert judged.recommended is not None
    assert judged.recommended.total_params == plan.design.total_params
    own = {law.law: law.efficiency for law in plan.laws if law.efficiency}
    assert {law.law: law.efficiency for law in judged.laws} == pytest.approx(own, rel=1e-3)


def test_flops_and_tokens_are_two_ways_to_say_one() -> None:
    """Training compute gives the tokens that cost it."""
    found = inspect("llama-2-7b", flops="8e22").judgement
    assert found is not None
    shape = MODELS["Llama-2-7B"]
    assert found.tokens == pytest.approx(8e22 / shape.flops_per_token(4096))
    assert found.leverage is None
    says = {law.law: law.says for law in found.laws if law.compute is None}
    assert says == {
        "tian2025": "judges a dense model by definition alone: its leverage is 1",
        "zhao2025": "says nothing about dense models",
    }


def test_nothing_fits_a_tiny_model() -> None:
    """Where no design of the grid fits the model's own memory, the laws still tell its leverage, and why no more."""
    fields = MODELS["FLAME-MoE-38M-100M"].to_dict() | {
        "num_kv_layers": 0,
        "vocab_size": 512,
        "num_layers": 2,
        "num_experts": 8,
    }
    tiny = Architecture.from_dict(fields | {"num_active_experts": 2})
    found = evaluate_laws(tiny, 1e11)
    assert found.leverage is not None
    assert found.recommended is None
    assert "too small" in found.recommended_says


def test_a_given_memory_limit_is_the_comparisons() -> None:
    """A limit that no design fits leaves the leverage and says what is too small."""
    found = inspect("mixtral-8x7b", tokens="1T", memory="10MB").judgement
    assert found is not None
    assert found.leverage is not None
    assert (found.memory, found.recommended) == ("10MB", None)
    assert "10MB is too small" in found.recommended_says


@pytest.mark.parametrize(
    "options, words",
    [
        ({"tokens": "1T", "flops": "1e22"}, "exclude each other"),
        ({"tokens": "many"}, "tokens 'many'"),
        ({"flops": "-1"}, "must be positive"),
        ({"seq_len": 0}, "seq_len 0"),
    ],
)
def test_impossible_questions_are_refused(options: dict[str, Any], words: str) -> None:
    """Arguments that contradict each other or cannot be raise one sentence."""
    with pytest.raises(UsageError, match=words):
        inspect("mixtral-8x7b", **options)


def test_report_has_every_number(olmoe: Inspection) -> None:
    """The report prints the counts, the laws and the recommendation, in text and in Markdown."""
    text = " ".join(terminal_text(inspection_sections(olmoe), 100).split())
    for words in (
        "6,919,161,856", "1,282,017,280", "8/64 = 12.5 %", "131,072 bytes a token", "tian2025", "zhao2025",
        "What moeplan would have chosen", "moeplan recommend --flops", "confidence: high",
    ):  # fmt: skip
        assert words in text, words
    assert "| tian2025" in markdown_text(inspection_sections(olmoe))
    hybrid = terminal_text(inspection_sections(inspect("hunyuan-large")), 100)
    assert "Keys and values, which two layers share (cross-layer attention)" in hybrid
    assert "params, all" not in hybrid
    assert "OLMoE-1B-7B" in terminal_text(model_list_sections(published_models().values()), 100)


@pytest.mark.parametrize("name", ["nemotron-3-nano", "jamba-v0.1"])
def test_hybrids_are_trained(name: str) -> None:
    """Models with state-space blocks have layouts, memory and days of training like any other."""
    done = run("inspect", name, "--gpus", "64xH100", "--full")
    assert done.exit_code == 0
    assert "Cannot be trained" not in done.output


def test_hybrids_that_do_not_fit_say_so() -> None:
    """DeepSeek-V4-Flash does not fit 64 H100 in training, and one sentence says what it would need."""
    done = run("inspect", "deepseek-v4-flash", "--gpus", "64xH100", "--full")
    assert "no layout of 64xH100 SXM fits" in " ".join(done.output.split())


def test_json_holds_the_inspection(olmoe: Inspection) -> None:
    """The JSON has every field, null where something is not counted."""
    data = olmoe.to_json()
    assert set(data) == {field.name for field in dataclasses.fields(Inspection)}
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert inspect("hunyuan-large").to_json()["total_params"] is None


def test_command_line_reads_files_names_and_nothing(tmp_path: Path) -> None:
    """The command takes a name, a file or nothing, and prints text or JSON."""
    assert "671,026,404,352 params" in run("inspect", "deepseek-v3").stdout
    data = json.loads(run("inspect", str(FOLDER / "qwen3-30b-a3b.json"), "--json").stdout)
    assert data["total_params"]["with_embeddings"] == 30_532_122_624
    assert "DeepSeek-V3" in run("inspect").stdout
    assert len(json.loads(run("inspect", "--json").stdout)) == len(published_models())


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[1, 2]",
        '{"hidden_size": 64}',
        '{"schema": "moeplan.plan/2"}',
        '{"schema": "moeplan.plan/99"}',
        json.dumps({"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 9,
                    "intermediate_size": 8, "num_experts": 2, "num_experts_per_tok": 3}),
        '{"hidden_size": 64, "hidden_size": 65}',
        " " * 10_000_000,
    ],
)  # fmt: skip
def test_bad_files_end_with_one_sentence(tmp_path: Path, content: str) -> None:
    """A file that is no model config ends with one sentence that names it and exit code 2."""
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8")
    done = run("inspect", str(path))
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: {path}: ")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.output
