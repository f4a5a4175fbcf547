"""`moeplan upcycle`: the law's crossings, exact copies, the decision inside and outside what was measured, refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from moeplan.architecture.shape import Architecture
from moeplan.architecture.trained import TrainedSettings, trained_settings
from moeplan.architecture.upcycled import upcycled_shape
from moeplan.cli import cli
from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.export.job import job_of_shape
from moeplan.plan.export.targets.hf import hf_config
from moeplan.plan.export.upcycling import export_upcycled
from moeplan.studies.upcycling import upcycle
from moeplan.studies.upcycling.overtaking import overtaking_tokens
from moeplan.studies.upcycling.result import Upcycling
from tests.published import MODELS
from tests.test_export import LISTED, MORE, RECIPE, arguments

LLAMA = MODELS["Llama-3-8B"]
TRAINED = TrainedSettings({"rope_type": "default", "rope_theta": 5e5}, 1e-5, 8192)
"""What Llama 3's weights go with (arXiv 2407.21783, table 3; its config.json)."""
SMALL = Architecture(
    d_model=64, num_layers=2, vocab_size=256, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=96, tied_embeddings=True
)
ONE_B = Architecture(
    d_model=2048, num_layers=16, vocab_size=32000, num_heads=16, num_kv_heads=8, head_dim=128, d_ff=6144
)
"""A dense model of just under 1B params, inside what the law was measured on."""


def run(*args: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, list(args), prog_name="moeplan")


def config(shape: Architecture, folder: Path) -> str:
    """A config.json of a shape."""
    path = folder / "config.json"
    path.write_text(json.dumps(hf_config(shape, 4096)), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "dense_tokens, tokens", [(1e10, 7e9), (3e10, 1.7e10), (1e11, 5.1e10), (3e11, 1.9e11)]
)  # fmt: skip
def test_crossings_are_the_papers(dense_tokens: float, tokens: float) -> None:
    """A MoE from scratch overtakes upcycling a dense 1B at 7e9, 1.7e10, 5.1e10 and 1.9e11 tokens (liew2025)."""
    assert overtaking_tokens(1e9, dense_tokens) == pytest.approx(tokens, rel=0.02)


@given(st.floats(1e8, 1e9), st.floats(1e10, 1.5e11))
def test_better_bases_are_overtaken_later(params: float, tokens: float) -> None:
    """Inside what the law was measured on, a dense model trained on more tokens is worth upcycling for longer."""
    first, second = overtaking_tokens(params, tokens), overtaking_tokens(params, 2 * tokens)
    assert first is not None
    assert second is None or second > first


def test_copies_are_counted_to_the_last_param() -> None:
    """8 copies of Llama-3-8B's blocks: its params, 7 more copies of each block, and a router of 8 rows a layer."""
    moe = upcycled_shape(LLAMA)
    block = 3 * LLAMA.d_model * LLAMA.d_ff
    routers = LLAMA.num_layers * 8 * LLAMA.d_model
    assert moe.total_params() == LLAMA.total_params() + LLAMA.num_layers * 7 * block + routers
    assert moe.active_params() == LLAMA.active_params() + LLAMA.num_layers * block + routers
    assert (moe.num_experts, moe.num_active_experts, moe.d_expert) == (8, 2, LLAMA.d_ff)


@pytest.mark.parametrize("granularity", [1, 2, 4, 8])
def test_cutting_copies_changes_only_the_router(granularity: int) -> None:
    """Whatever the granularity, total and active params of the experts are those of whole copies."""
    whole, cut = upcycled_shape(LLAMA), upcycled_shape(LLAMA, granularity=granularity)
    more = LLAMA.num_layers * 8 * (granularity - 1) * LLAMA.d_model
    assert cut.total_params() - more == whole.total_params()
    assert cut.active_params() - more == whole.active_params()
    assert cut.num_active_experts == 2 * granularity


def test_a_shared_copy() -> None:
    """With --shared one more whole copy of each block is active for every token."""
    plain, shared = upcycled_shape(LLAMA, granularity=2), upcycled_shape(LLAMA, granularity=2, shared=True)
    more = LLAMA.num_layers * 3 * LLAMA.d_model * LLAMA.d_ff
    assert shared.total_params() - plain.total_params() == more
    assert shared.active_params() - plain.active_params() == more


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"experts": 1}, "from 2 to 1024"),
        ({"granularity": 5}, "must divide the block's width 14336"),
        ({"granularity": 0}, "granularity 0"),
        ({"top_k": 9}, "1 to 8"),
        ({"granularity": 4, "top_k": 6}, "multiple of granularity 4"),
    ],
)
def test_numbers_that_make_no_moe(change: dict[str, Any], reason: str) -> None:
    """Experts, granularity and top-k that do not go together are refused with what would work."""
    with pytest.raises(UsageError, match=reason):
        upcycled_shape(LLAMA, **change)


@pytest.mark.parametrize("tokens", ["0.5", "1e29"])
def test_tokens_that_no_model_saw_are_refused(tokens: str) -> None:
    """Half a token and 1e29 of them are mistakes: one sentence with the range, and no verdict."""
    with pytest.raises(UsageError, match=r"dense_tokens .* must be from 1e\+06 to 1e\+15"):
        upcycle("llama-3-8b", dense_tokens=tokens, flops="1e22")


@pytest.fixture(scope="module")
def llama() -> Upcycling:
    """Llama-3-8B with 1e22 FLOPs."""
    return upcycle("llama-3-8b", "1e22", dense_tokens="15T")


def test_a_large_model_is_answered_outside_the_law(llama: Upcycling) -> None:
    """1.4 % of Llama-3-8B's compute: upcycle, by publications; the law was not measured there, and that is said."""
    assert (llama.verdict, llama.extrapolated, llama.crossing.inside) == ("upcycle", True, False)
    assert llama.budget_share == pytest.approx(1e22 / (6 * 7.5e9 * 15e12), rel=0.1)
    assert llama.tokens == pytest.approx(1e22 / llama.flops_per_token, rel=1e-6)
    assert any("base_params" in name for name in llama.crossing.outside)
    assert llama.scratch is not None
    assert llama.scratch.tokens > llama.tokens


def test_the_first_line_can_be_acted_on() -> None:
    """The first sentence names the choice, the model that comes of it, its tokens and its compute."""
    done = run("upcycle", "llama-3-8b", "--dense-tokens", "15T", "--flops", "1e22")
    first = " ".join(done.stdout.split("Because", 1)[0].split())
    assert first == "Upcycle Llama-3-8B into a 47.49B-A13.7B MoE and train it on 122B tokens with 1e22 FLOPs."
    assert "No law was measured there" in " ".join(done.stdout.split())


@pytest.mark.parametrize("flops, verdict", [("1e20", "upcycle"), ("1e21", "scratch")])
def test_inside_the_law_its_crossing_decides(flops: str, verdict: str, tmp_path: Path) -> None:
    """For a dense model of 1B on 100B tokens the MoE from scratch overtakes at 5.1e10 tokens: upcycle before."""
    found = upcycle(config(ONE_B, tmp_path), flops, dense_tokens="100B")
    assert found.crossing.tokens == pytest.approx(5.1e10, rel=0.1)
    assert found.crossing.inside
    assert found.verdict == verdict == ("upcycle" if found.tokens < found.crossing.tokens else "scratch")
    assert not found.extrapolated
    assert found.crossing.same_as_scratch is not None
    assert (found.crossing.same_as_scratch > found.tokens) == (verdict == "upcycle")


@pytest.mark.parametrize("flops, verdict", [("1e23", "upcycle"), ("7e23", "open"), ("2e24", "scratch")])
def test_outside_the_law_the_budgets_share_decides(flops: str, verdict: str) -> None:
    """Up to half of the dense compute upcycle (2212.05055), from twice on scratch (2406.06563), between it is open."""
    assert upcycle("llama-3-8b", flops, memory="640GB").verdict == verdict


def test_moes_are_refused() -> None:
    """What is a MoE already is not upcycled: one sentence, exit code 2."""
    for name in ("qwen3-30b-a3b", "deepseek-v3"):
        done = run("upcycle", name, "--flops", "1e22")
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert "MoE already" in done.stderr


@pytest.mark.parametrize(
    "args, sentence",
    [
        (["llama-3-8b"], "--flops"),
        (["llama-3-8b", "--flops", "many"], "'many'"),
        (["mistral-7b-v0.1", "--flops", "1e22"], "--dense-tokens 2T"),
        (["llama-3-8b", "--flops", "1e22", "--memory", "big"], "'big'"),
        (["llama-3-8b", "--flops", "1e22", "--gpus", "8xNOPE"], "NOPE"),
        (["llama-3-8b", "--flops", "1e22", "--granularity", "5"], "must divide"),
        (["llama-3-8b", "--flops", "1e22", "--output", "x"], "--to"),
        (["llama-3-8b", "--flops", "1e22", "--to", "hf", "--json"], "leave out"),
        (["nobody-8b", "--flops", "1e22"], "no bundled model"),
    ],
)
def test_mistakes_are_one_sentence(args: list[str], sentence: str) -> None:
    """Every wrong value ends with exit code 2 and one sentence."""
    done = run("upcycle", *args)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence in done.stderr


def test_megatron_is_told_to_upcycle() -> None:
    """The arguments load the dense checkpoint, with a softmax router whose weights add up to 1, and no bias."""
    moe = upcycled_shape(LLAMA, granularity=8, top_k=8)
    args = arguments(export_upcycled(job_of_shape("x", moe, 4096, 10**11), "megatron", 8, TRAINED))
    assert (args["--moe-use-upcycling"], args["--moe-upcycling-granularity"]) == ("", "8")
    assert args["--moe-router-score-function"] == "softmax"
    assert (int(args["--num-experts"]), int(args["--moe-ffn-hidden-size"])) == (64, LLAMA.d_ff // 8)
    own = {"--moe-use-upcycling", "--moe-upcycling-granularity", "--moe-router-pre-softmax"}
    assert set(args) <= {*LISTED, *MORE, *RECIPE, *own}
    assert not any("expert-bias" in flag or "scaling-factor" in flag for flag in args)


def test_the_upcycled_model_keeps_what_its_weights_were_trained_with(tmp_path: Path) -> None:
    """Rotary base, norms' epsilon and context are Llama 3's own (500,000, 1e-5, 8,192), not those of a new run."""
    done = run("upcycle", "llama-3-8b", "--flops", "1e22", "--to", "megatron")
    args = arguments(done.stdout)
    assert float(args["--rotary-base"]) == 500_000
    assert (float(args["--norm-epsilon"]), args["--max-position-embeddings"]) == (1e-5, "8192")
    written = json.loads(run("upcycle", "llama-3-8b", "--flops", "1e22", "--to", "hf").stdout)
    assert (written["rope_parameters"]["rope_theta"], written["rms_norm_eps"]) == (500_000, 1e-5)

    path = tmp_path / "config.json"
    scaled = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaled |= {"original_max_position_embeddings": 8192}
    own = hf_config(ONE_B, 4096) | {"rms_norm_eps": 3e-5, "max_position_embeddings": 131072}
    del own["rope_parameters"]
    for more in ({"rope_theta": 7e5, "rope_scaling": scaled}, {"rope_parameters": {**scaled, "rope_theta": 7e5}}):
        path.write_text(json.dumps(own | more), encoding="utf-8")
        words = ("upcycle", str(path), "--dense-tokens", "100B", "--flops", "1e20", "--to")
        config = json.loads(run(*words, "hf").stdout)
        assert config["rope_parameters"] == {**scaled, "rope_theta": 7e5}
        assert (config["rms_norm_eps"], config["max_position_embeddings"]) == (3e-5, 131072)
        args = arguments(run(*words, "megatron").stdout)
        assert (args["--rotary-base"], args["--use-rope-scaling"], args["--rope-scaling-factor"]) == ("700000", "", "8")

    path.write_text(json.dumps(own | {"rope_theta": 1e4, "rope_scaling": {"type": "yarn", "factor": 4}}))
    refused = run(*words, "megatron")
    assert refused.exit_code == 1
    assert "no rotary positions of type yarn; use --to hf" in refused.output


def test_settings_that_nobody_knows_are_asked_for(tmp_path: Path) -> None:
    """A bundled model without them is refused with what would work; what a file leaves open is said."""
    refused = run("upcycle", "Ling-Dense-6.1B", "--dense-tokens", "1T", "--flops", "1e21", "--to", "hf")
    assert refused.exit_code == 2
    assert "give the model's own config.json" in refused.output
    assert "rope_theta is absent: taken as 10000" in trained_settings({"rms_norm_eps": 1e-5}).notes
    for wrong in ({"rope_theta": "x"}, {"rope_parameters": {"rope_theta": "1e6\n"}}, {"hidden_act": "a\nb"}):
        with pytest.raises(UsageError, match="must be"):
            trained_settings(wrong)


def test_what_does_not_fit_is_said_first() -> None:
    """A memory limit that the upcycled model exceeds stands in the first words of the answer."""
    done = CliRunner().invoke(cli, ["upcycle", "llama-3-8b", "--flops", "1e22", "--memory", "1GB"])
    assert done.stdout.startswith("It does not fit the memory (96.1GB of 900MB usable)")
    fits = CliRunner().invoke(cli, ["upcycle", "llama-3-8b", "--flops", "1e22", "--memory", "8x80GB"])
    assert fits.stdout.startswith("Upcycle")


def test_what_upcycled_models_are_not_written_for() -> None:
    """Parts of blocks that a router could choose apart, and shared copies, are refused with what would work."""
    cut, shared = upcycled_shape(LLAMA, granularity=2), upcycled_shape(LLAMA, shared=True)
    with pytest.raises(InfeasibleError, match="--to megatron"):
        export_upcycled(job_of_shape("x", cut, 4096, 10**11), "hf", 2, TRAINED)
    for target in ("hf", "megatron"):
        with pytest.raises(InfeasibleError, match="shared"):
            export_upcycled(job_of_shape("x", shared, 4096, 10**11), target, 1, TRAINED)


@pytest.mark.export
@pytest.mark.parametrize("qk_norm", ["none", "head"])
@pytest.mark.filterwarnings("default")
def test_the_upcycled_model_starts_as_the_dense_one(qk_norm: Any) -> None:
    """Real classes: with each block copied into the exported config's experts, the logits are the dense model's."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    dense = dataclasses.replace(SMALL, qk_norm=qk_norm)
    moe = upcycled_shape(dense, experts=4)
    own = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rms_norm_eps": 1e-5}
    trained = hf_config(dense, 64) | own  # not what a new run would have
    text = export_upcycled(job_of_shape("x", moe, 64, 10**9), "hf", 1, trained_settings(trained))

    def build(values: dict[str, Any]) -> Any:
        torch.manual_seed(0)
        made = transformers.CONFIG_MAPPING[values["model_type"]].from_dict({**values, "dtype": "float32"})
        return transformers.AutoModelForCausalLM.from_config(made).float().eval()

    before, after = build(trained), build(json.loads(text))
    assert sum(p.numel() for p in after.parameters()) == moe.total_params()
    weights = before.state_dict()
    kept = {name: weights[name] for name in after.state_dict() if name in weights}
    after.load_state_dict(kept, strict=False)
    for block, other in zip(before.model.layers, after.model.layers, strict=True):
        experts = other.mlp.experts
        pair = torch.cat([block.mlp.gate_proj.weight, block.mlp.up_proj.weight])
        experts.gate_up_proj.data.copy_(pair.expand_as(experts.gate_up_proj))
        experts.down_proj.data.copy_(block.mlp.down_proj.weight.expand_as(experts.down_proj))
        torch.nn.init.normal_(other.mlp.gate.weight)
    tokens = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        difference = (before(tokens).logits - after(tokens).logits).abs().max()
    assert float(difference) < 1e-5


def test_a_budget_of_few_tokens_is_refused_with_one_that_does() -> None:
    """A budget that pays for thousands of tokens trains nothing; the one that the refusal names does."""
    with pytest.raises(InfeasibleError, match="too few to train on; give at least") as refused:
        upcycle("llama-3-8b", flops="1e15")
    assert upcycle("llama-3-8b", flops=str(refused.value).rpartition(" ")[2]).tokens >= 1e6
