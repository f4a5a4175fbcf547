"""Plans with patterns of attention and latent experts: brute force, exact counts, what is refused, what they buy."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest

from moeplan.architecture import counting
from moeplan.architecture.attention.delta import GatedDeltaNet
from moeplan.architecture.attention.gqa import GroupedQueryAttention
from moeplan.architecture.blocks import AttentionRun, Blocks
from moeplan.architecture.conventions import Variables
from moeplan.architecture.hybrid import HybridArchitecture
from moeplan.architecture.patterns import pattern_named
from moeplan.architecture.published import find_model
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import load_device
from moeplan.cost.inference_memory import InferenceSettings, cache_bytes, state_bytes, total_inference_bytes
from moeplan.cost.training.memory import training_bytes, training_memory
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput.step import step_time
from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.budget import Budget
from moeplan.plan.document import Plan
from moeplan.plan.export import export
from moeplan.plan.planner import recommend
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.space import Space
from tests.small import VOCAB, laws, small_grid

KINDS = (("gdn-3:1", 1), ("kda-3:1", 1), ("mamba2-5:1", 1), ("gdn-2:2", 1), ("gqa", 4), ("mla", 2), ("mamba2-3:1", 4))
"""(pattern, latent) of plans that are tried."""


def grid_of(attention: str, latent: int, **axes: Any) -> Grid:
    """The small grid with a pattern and a latent width."""
    budget = Budget(1e22, "80GB", vocab_size=VOCAB, tied_embeddings=True, attention=attention, latent=latent)
    return budget.declared_grid(small_grid(**axes))


# --- a plain loop ----------------------------------------------------------------------------------------------------


def delta_designs(grid: Grid) -> list[Architecture]:
    """Designs of gdn-3:1 one by one, by the rules as they are documented."""
    found: list[Architecture] = []
    for d in grid.d_model:
        width, step = (64, 16) if d < 1024 else (128, 64)
        depths = sorted({max(int(d / aspect / 4 + 0.5), 1) * 4 for aspect in grid.aspect_ratio})
        h = d // width
        h = round(h / 8) * 8 if h >= 32 else h
        kv = 8 if h >= 32 else h // 4
        state = GatedDeltaNet(num_key_heads=h // 2, num_value_heads=h, key_head_dim=width, value_head_dim=width)
        full = GroupedQueryAttention(
            num_heads=h, num_kv_heads=kv, head_dim=width, qk_norm="head", gate="full", gate_in_query=True
        )
        inner = h * width
        delta = 6 * (4 * d * inner + 2 * d * h + 2 * inner * 4 + 2 * h + width) + 18 * h * width * width
        scores = 6 * (3 * d * inner + 2 * d * kv * width + 2 * width) + 12 * inner * grid.seq_len
        widths = sorted({max(step, round(2 * d / g / step) * step) for g in grid.granularity})
        for depth, e, k, s, f in itertools.product(
            depths, grid.num_experts, grid.num_active_experts, grid.num_shared_experts, widths
        ):
            if not 8 <= depth <= 128 or (e > 256 and d < 1024) or not (k < e and k >= 0.008 * e):
                continue
            share = (3 * delta + scores) / (3 * delta + scores + 4 * 18 * d * (k + s) * f)
            if not 0.25 <= share <= 0.45:
                continue
            layers = range(depth)
            runs = (
                AttentionRun(state, tuple(i for i in layers if i % 4 != 3)),
                AttentionRun(full, tuple(i for i in layers if i % 4 == 3)),
            )
            found.append(
                HybridArchitecture(
                    d_model=d, num_layers=depth, vocab_size=grid.vocab_size, num_heads=h, num_kv_heads=kv,
                    head_dim=width, d_ff=(k + s) * f, num_experts=e, num_active_experts=k, d_expert=f,
                    num_shared_experts=s, num_dense_layers=1, tied_embeddings=True, qk_norm="head",
                    shared_expert_gate=True, blocks=Blocks(attentions=runs),
                )
            )  # fmt: skip
    return found


@pytest.mark.parametrize("flops, memory", ((1e20, "8GB"), (1e22, "80GB")))
def test_search_of_a_pattern_equals_brute_force(flops: float, memory: str) -> None:
    """The best gdn-3:1 of a small grid is the one that a plain loop over exact architectures finds, with the same V."""
    axes = {"d_model": (512, 1024, 2048, 4096), "aspect_ratio": (64, 96), "num_shared_experts": (1,)}
    budget = Budget(flops, memory, vocab_size=VOCAB, tied_embeddings=True, attention="gdn-3:1")
    reference = small_grid(**axes)
    space = Space(budget, laws(), base=budget.declared_grid(reference), reference=reference)
    scores = space.score(flops)
    ln_value = scores.mean(space.laws)
    values = {}
    for architecture in delta_designs(budget.declared_grid(reference)):
        if total_inference_bytes(architecture, InferenceSettings()) > budget.usable_bytes:
            continue
        v, per_token = Variables(architecture, 4096), architecture.flops_per_token(4096)
        tokens = min(flops / per_token, 100e12)
        judged = [float(ref.judge(v, tokens, per_token * tokens)) for ref in space.references]
        values[json.dumps(architecture.to_dict())] = sum(judged) / len(judged)
    assert len(values) == int(scores.feasible.sum()) > 10
    assert float(ln_value.max()) == pytest.approx(max(values.values()), abs=1e-9)
    found = space.architecture(int(np.argmax(ln_value)))
    assert values[json.dumps(found.to_dict())] == pytest.approx(max(values.values()), abs=1e-9)


@pytest.mark.parametrize("attention, latent", KINDS)
def test_a_grid_counts_as_each_design(attention: str, latent: int) -> None:
    """Params, FLOPs, served and training bytes, and step time of arrays of designs are those of each design alone."""
    designs = grid_of(attention, latent).product(2048)
    assert designs is not None
    totals, active = designs.count(counting.total_params), designs.count(counting.active_params)
    serving, settings = InferenceSettings(context=8192), TrainingSettings(num_micro_batches=4)
    memory = designs.count(lambda shape: total_inference_bytes(shape, serving))
    flops = designs.count(lambda shape: counting.flops_per_token(shape, 4096))
    some = designs.take(np.arange(0, len(designs), max(len(designs) // 7, 1)))
    layouts = (Layout(ep=4, dp=4), Layout(pp=4, ep=2, dp=2, recompute="selective"), Layout(pp=2, recompute="full"))
    trained = [training_bytes(some, layout, settings) for layout in layouts]
    times = [step_time(some, layout, load_device("H100"), 64) for layout in layouts]
    for i in range(len(some)):
        alone, place = some.architecture(i), int(some._places[i])
        assert alone.total_params() == totals.reshape(-1)[place]
        assert alone.active_params() == active.reshape(-1)[place]
        assert alone.flops_per_token(4096) == flops.reshape(-1)[place]
        assert total_inference_bytes(alone, serving) == memory.reshape(-1)[place]
        for layout, bytes_, time in zip(layouts, trained, times, strict=True):
            assert training_memory(alone, layout, settings).total == pytest.approx(float(bytes_[i]), rel=1e-12)
            own = step_time(alone, layout, load_device("H100"), 64)
            assert float(own.total) == pytest.approx(float(np.broadcast_to(time.total, len(some))[i]), rel=1e-12)


def test_sizes_are_those_of_the_published_models() -> None:
    """At the heads of Qwen3-Next, Kimi Linear and Nemotron-3-Super, blocks with a state are exactly theirs."""
    for name, word, heads, head_dim in (
        ("Kimi-Linear-48B-A3B", "kda-3:1", 32, 128),
        ("Nemotron-3-Super", "mamba2-5:1", 32, 128),
    ):
        model = find_model(name).architecture
        fields = {"num_heads": heads, "num_kv_heads": heads, "head_dim": head_dim, "d_model": model.d_model}
        published = next(a for _, a in counting.attentions(model) if a.kind == pattern_named(word).state)
        shape = dataclasses.replace(model, **fields) if word != "kda-3:1" else model
        assert published in [a for _, a in pattern_named(word).attentions(shape)]
    qwen = GatedDeltaNet(num_key_heads=16, num_value_heads=32, key_head_dim=128, value_head_dim=128)
    assert GatedDeltaNet.beside(4096, 32, 128) == qwen  # 16 heads of 256 there: as wide as 32 of 128


def test_a_pattern_keeps_a_share_of_the_cache() -> None:
    """gdn-4:1 caches keys and values in every fifth block alone, and a state that the length does not change."""
    plain, mixed = (grid_of(word, 1).product(2048).take([0]).architecture(0) for word in ("gqa", "gdn-4:1"))
    assert cache_bytes(mixed, 131072) - state_bytes(mixed) == mixed.num_layers // 5 * 131072 * 2 * 2 * 4 * 128
    assert cache_bytes(plain, 131072) == plain.num_layers * 131072 * 2 * 2 * 4 * 128
    assert state_bytes(mixed) > 0 == state_bytes(plain)


def test_latent_experts_cost_what_plain_ones_do() -> None:
    """With 4 times the experts in a quarter of the width, routed params and FLOPs are the plain model's, less rows."""
    plain, latent = grid_of("gqa", 1).product(2048), grid_of("gqa", 4).product(2048)
    assert plain is not None
    assert latent is not None
    own = latent.take([0]).architecture(0)
    twin = dataclasses.replace(
        own, d_latent=0, num_experts=own.num_experts // 4, num_active_experts=own.num_active_experts // 4
    )
    routed = own.num_moe_layers * own.num_experts * counting.expert_params(own)
    assert routed == twin.num_moe_layers * twin.num_experts * counting.expert_params(twin)
    assert own.G == twin.G
    assert own.expansion_ratio == twin.expansion_ratio
    maps = own.params_by_group()["routed_experts"] - routed
    assert maps == own.num_moe_layers * 2 * own.d_model * own.d_latent


def test_plans_are_read_again_and_say_what_no_law_measured() -> None:
    """A plan with a pattern comes back from its JSON as it was, and one sentence says what its laws do not know."""
    plan = recommend(Budget(1e21, "24GB", attention="mamba2-3:1", latent=2))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    said = [note for note in plan.notes if "No law" in note]
    assert len(said) == 1
    assert "Mamba-2" in said[0]
    assert "latent" in said[0]
    plain = recommend(Budget(1e21, "24GB"))
    assert not [note for note in plain.notes if "No law" in note]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"latent": 8}, "latent 8 must be 1, 2 or 4: experts in a latent width were measured to lose no quality"),
        ({"latent": 3}, "latent 3 must be 1, 2 or 4"),
        ({"attention": "gdn"}, "attention 'gdn' must be gqa or mla, or blocks with a state before each"),
        ({"attention": "rwkv-3:1"}, "as in gdn-3:1 or kda-3:1 or mamba2-3:1"),
        ({"attention": "gdn-0:1"}, "must have 1 to 16 blocks of each kind in a row"),
        ({"attention": "gdn-99:1"}, "must have 1 to 16 blocks of each kind in a row"),
    ],
)
def test_what_no_plan_has_is_refused(fields: dict[str, Any], says: str) -> None:
    """A latent width beyond what was measured, and words that name no pattern: one sentence with what would work."""
    with pytest.raises(UsageError, match=says):
        Budget(1e22, "80GB", **fields)


def test_exports_know_them_or_refuse() -> None:
    """Hugging Face and Megatron write what they have; the others say in a sentence that they have not."""
    delta = recommend(Budget(1e21, "24GB", attention="gdn-3:1"))
    latent = recommend(Budget(1e21, "24GB", latent=4))
    text = export(delta, "megatron")
    for flag in ("--experimental-attention-variant gated_delta_net", "--linear-attention-freq 4",
                 "--attention-output-gate", "--moe-shared-expert-gate", "--swiglu"):  # fmt: skip
        assert flag in text
    text = export(latent, "megatron")
    assert f"--moe-latent-size {latent.architecture.d_model // 4}" in text
    assert "--squared-relu" in text
    assert "--swiglu" not in text
    assert json.loads(export(delta, "hf"))["architectures"] == ["Qwen3NextForCausalLM"]
    assert json.loads(export(latent, "hf"))["architectures"] == ["NemotronHForCausalLM"]
    for target in ("torchtitan", "maxtext", "megatron_bridge"):
        for plan in (delta, latent):
            with pytest.raises(InfeasibleError, match="export is not written for"):
                export(plan, target)
    kimi = recommend(Budget(1e21, "24GB", attention="kda-3:1"))
    with pytest.raises(InfeasibleError, match="not written for Kimi delta attention"):
        export(kimi, "megatron")


@pytest.mark.parametrize("layout", [None, Layout(pp=2, ep=8, dp=8, virtual_stages=2)])
def test_megatrons_hybrid_model_has_the_plans_layers_and_params(layout: Layout | None) -> None:
    """The letters of the pattern are the plan's blocks, stage by stage; counted by hand they have its params.

    M: maps in (gate, inputs, B, C, steps) and out, a convolution over 4 tokens with its bias, A, D, the step's bias, a
    norm (megatron/core/ssm/mamba_mixer.py); every letter has a norm before it.
    """
    plan = recommend(Budget(1e21, "24GB", attention="mamba2-3:1"))
    shape = plan.architecture
    lines = [line.partition(" ") for line in export(plan, "megatron", layout=layout).splitlines() if line[0] == "-"]
    flags = {flag: value for flag, _, value in lines}
    segments = flags["--hybrid-layer-pattern"].split("|")
    letters = "".join(segments)
    assert len(segments) == (1 if layout is None else 4)
    assert len(letters) == 2 * shape.num_layers
    assert letters[::2].count("*") * 4 == shape.num_layers - shape.num_layers % 4
    assert letters[1::2] == "-" * shape.num_dense_layers + "E" * shape.num_moe_layers
    assert flags["--position-embedding-type"] == "none"
    assert not {"--num-layers", "--moe-layer-freq", "--rotary-base"} & set(flags)
    d, heads, width, state, groups = (int(flags[name]) for name in (
        "--hidden-size", "--mamba-num-heads", "--mamba-head-dim", "--mamba-state-dim", "--mamba-num-groups",
    ))  # fmt: skip
    inner = heads * width
    convolved = inner + 2 * groups * state
    each = {
        "M": d * (inner + convolved + heads) + inner * d + 5 * convolved + 3 * heads + inner,
        "*": 2 * d * int(flags["--kv-channels"]) * (shape.num_heads + int(flags["--num-query-groups"])),
        "-": 2 * d * int(flags["--ffn-hidden-size"]),
        "E": d * shape.num_experts  # the router's bias is a buffer
        + 2 * d * (shape.num_experts * shape.d_expert + int(flags["--moe-shared-expert-intermediate-size"])),
    }
    embeddings = (1 + ("--untie-embeddings-and-output-weights" in flags)) * shape.vocab_size * d
    counted = embeddings + d + sum(d + each[letter] for letter in letters)
    assert counted == shape.total_params()
