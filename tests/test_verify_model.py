"""The proxy model: exact size, experts against a plain loop, routing, causality. Needs torch: `pytest -m verify`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the extra verify is not installed")
import torch.nn.functional as F  # noqa: E402

from moeplan.architecture.shape import Architecture  # noqa: E402
from moeplan.errors import UsageError  # noqa: E402
from moeplan.verification import experts as verify_experts  # noqa: E402
from moeplan.verification import model as verify_model  # noqa: E402
from moeplan.verification.experts import Grouped, Rows, sort_on_device, zero_unreached  # noqa: E402
from moeplan.verification.model import FeedForward, Model, MoE, attend, largest, rotary_table, rotate  # noqa: E402
from tests.tiny import DENSE, MOE  # noqa: E402

pytestmark = pytest.mark.verify


def random_architecture(seed: int) -> Architecture:
    """Any shape that a proxy can have."""
    pick = random.Random(seed)
    kv_heads = pick.choice((1, 2, 3))
    num_layers, num_experts = pick.randint(1, 5), pick.choice((0, 1, 2, 7, 16, 64))
    experts = {}
    if num_experts:
        experts = {
            "num_experts": num_experts,
            "num_active_experts": pick.randint(1, min(num_experts, 8)),
            "d_expert": pick.choice((4, 5, 16)),
            "num_shared_experts": pick.choice((0, 1, 3)),
            "num_dense_layers": pick.randint(0, num_layers),
        }
        experts["d_shared_expert"] = pick.choice((0, 12)) if experts["num_shared_experts"] else 0
    return Architecture(
        d_model=pick.choice((8, 20, 36, 64)),
        num_layers=num_layers,
        vocab_size=pick.choice((17, 256, 1000)),
        num_heads=kv_heads * pick.choice((1, 2, 4)),
        num_kv_heads=kv_heads,
        head_dim=pick.choice((2, 8, 16)),
        d_ff=pick.choice((7, 24, 96)),
        tied_embeddings=pick.random() < 0.5,
        qk_norm="head",
        **experts,
    )


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Fill the matrices so that every output has a size near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, parameter.shape[-2 if parameter.ndim == 3 else -1] ** -0.5, generator=generator)


def moe_layer(num_experts: int = 8, active: int = 3, shared: int = 1, d_model: int = 16, d_expert: int = 8) -> MoE:
    """A float64 layer with random weights."""
    layer = MoE(
        Architecture(
            d_model=d_model, num_layers=1, vocab_size=8, num_heads=1, num_experts=num_experts,
            num_active_experts=active, d_expert=d_expert, num_shared_experts=shared, qk_norm="head",
        )
    )  # fmt: skip
    randomise(layer)
    return layer.double()


def plain_loop(layer: MoE, x_MD: torch.Tensor) -> torch.Tensor:
    """The layer's definition, token by token and expert by expert."""
    y_MD = torch.zeros_like(x_MD)
    score_ME = torch.sigmoid(x_MD @ layer.router.T)
    for token in range(len(x_MD)):
        chosen = torch.argsort(score_ME[token].detach() + layer.bias_E, descending=True)[: layer.num_active].tolist()
        total = sum(score_ME[token, expert] for expert in chosen)
        for expert in chosen:
            gate, up = (x_MD[token] @ layer.w_in[expert]).chunk(2)
            out = (gate * torch.sigmoid(gate) * up) @ layer.w_out[expert]
            y_MD[token] += out * score_ME[token, expert] / total * layer.num_active**0.5
    if layer.shared is not None:
        gate, up = (x_MD @ layer.shared.w_in.T).chunk(2, dim=1)
        y_MD = y_MD + (gate * torch.sigmoid(gate) * up) @ layer.shared.w_out.T
    return y_MD


def gradients(y: torch.Tensor, upstream: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of sum(y * upstream)."""
    return list(torch.autograd.grad(y, inputs, upstream))


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest value."""
    return float((got - wanted).detach().abs().max() / wanted.detach().abs().max())


@pytest.mark.parametrize("seed", range(50))
def test_model_has_exactly_the_counted_params(seed: int) -> None:
    """A random architecture's model has its counted params to the last one, and runs."""
    architecture = random_architecture(seed)
    model = Model(architecture, 8, seed)
    assert sum(parameter.numel() for parameter in model.parameters()) == architecture.total_params()
    ids = torch.randint(0, architecture.vocab_size, (2, 8), generator=torch.Generator().manual_seed(seed))
    loss = model(ids, ids)
    assert loss.shape == (2, 8)
    assert torch.isfinite(loss).all()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"qkv_bias": True}, "qkv_bias"),
        ({"qk_norm": "none"}, "qk_norm"),
        ({"expert_bias": True}, "expert_bias"),
        ({"attention_sinks": True}, "attention_sinks"),
        ({"head_dim": 5}, "head_dim"),
        ({"attention": "mla", "kv_lora_rank": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}, "attention"),
        ({"moe_layer_pattern": [True, False], "d_ff": 16}, "moe_layer_pattern"),
    ],
)
def test_other_shapes_are_refused_by_name(change: dict[str, object], field: str) -> None:
    """What the model does not build is refused with the name of the field."""
    with pytest.raises(UsageError, match=field):
        Model(Architecture.from_dict({**MOE.to_dict(), **change}), 8)


@pytest.mark.parametrize("device_sort", [False, True], ids=["on CPUs", "as on GPUs"])
@pytest.mark.parametrize("blocks", [False, True], ids=["grouped", "blocks"])
@pytest.mark.parametrize(("num_experts", "active", "shared"), [(8, 3, 1), (5, 5, 0), (16, 2, 2), (1, 1, 0)])
def test_layer_is_the_plain_loop(
    num_experts: int, active: int, shared: int, blocks: bool, device_sort: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and all gradients equal those of a loop over tokens and experts to 1e-6 in float64, in blocks or not,
    with rows sorted by NumPy or by tensors of fixed shapes."""
    monkeypatch.setattr(verify_model, "in_blocks", lambda w_EDF: blocks)
    if device_sort:
        monkeypatch.setattr(verify_experts, "_sort_on_cpu", sort_on_device)
    layer = moe_layer(num_experts, active, shared)
    layer.bias_E.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(1))
    x_MD = torch.randn(29, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    upstream = torch.randn(29, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    inputs = [x_MD, *layer.parameters()]
    got, wanted = layer(x_MD), plain_loop(layer, x_MD)
    assert relative(got, wanted) < 1e-6
    for mine, theirs in zip(gradients(got, upstream, inputs), gradients(wanted, upstream, inputs), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-6, atol=1e-6 * float(theirs.abs().max()) + 1e-12)


@pytest.mark.parametrize("blocks", [False, True], ids=["grouped", "blocks"])
@pytest.mark.parametrize(
    ("kind", "d_expert", "tolerance"),
    [(torch.float32, 8, 1e-5), (torch.float32, 5, 1e-5), (torch.bfloat16, 8, 0.03), (torch.bfloat16, 12, 0.03)],
)
def test_every_kernel_gives_the_same(
    kind: torch.dtype, d_expert: int, tolerance: float, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grouped_mm, the loop over segments (widths of no whole 16 bytes) and blocks agree with the float64 loop."""
    monkeypatch.setattr(verify_model, "in_blocks", lambda w_EDF: blocks)
    exact = moe_layer(d_expert=d_expert)
    layer = moe_layer(d_expert=d_expert).float()
    for owner in (layer, layer.shared):
        for name in ("w_in", "w_out"):
            setattr(owner, name, torch.nn.Parameter(getattr(owner, name).detach().to(kind)))
    x_MD = torch.randn(64, 16, generator=torch.Generator().manual_seed(2))
    upstream = torch.randn(64, 16, generator=torch.Generator().manual_seed(3))
    x, x_exact = x_MD.clone().requires_grad_(), x_MD.double().requires_grad_()
    got, wanted = layer(x), plain_loop(exact, x_exact)
    assert relative(got.double(), wanted) < tolerance
    mine = gradients(got, upstream.to(got.dtype), [x, *layer.parameters()])
    theirs = gradients(wanted, upstream.double(), [x_exact, *exact.parameters()])
    assert all(relative(a.double(), b) < 2 * tolerance for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("case", ["random", "ties", "nan", "one expert takes all"])
def test_every_token_reaches_exactly_k_experts(case: str) -> None:
    """Whatever the scores, each token reaches k different experts and the load adds up: nothing is dropped."""
    layer = moe_layer(num_experts=16, active=4, shared=0)
    x_MD = torch.randn(50, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if case == "ties":
        x_MD.zero_()
    elif case == "nan":
        x_MD[3] = float("nan")
    elif case == "one expert takes all":
        layer.bias_E[5] = 10.0
    ids_MK, _ = layer.route(x_MD)
    assert all(len(set(row)) == 4 for row in ids_MK.tolist())
    layer(x_MD)
    assert int(layer.load_E.sum()) == 50 * 4
    if case == "one expert takes all":
        assert int(layer.load_E[5]) == 50


def test_chosen_are_the_largest() -> None:
    """The chosen experts are those that a full sort puts first."""
    score_ME = torch.randn(200, 33, generator=torch.Generator().manual_seed(0))
    chosen = largest(score_ME, 7).sort(dim=1).values
    assert torch.equal(chosen, score_ME.sort(dim=1, descending=True).indices[:, :7].sort(dim=1).values)


@pytest.mark.parametrize("sort", [verify_experts._sort_on_cpu, sort_on_device], ids=["on CPUs", "on GPUs"])
@pytest.mark.parametrize("blocks", [False, True], ids=["grouped", "blocks"])
@pytest.mark.parametrize("skew", [0.0, 3.0], ids=["even", "most tokens to one expert"])
def test_rows_are_sorted_by_expert(skew: float, blocks: bool, sort: Callable[..., Rows]) -> None:
    """Each choice has a row of its own, within the rows of its expert, and tokens keep their order there."""
    score_ME = torch.rand(60, 6, generator=torch.Generator().manual_seed(0))
    score_ME[:, 4] += skew
    ids_MK = largest(score_ME, 2)
    rows = sort(ids_MK, 6, blocks)
    assert len(set(rows.row_MK.flatten().tolist())) == 120
    load = torch.bincount(ids_MK.flatten(), minlength=6)
    assert torch.equal(rows.ends_E, load.cumsum(0).int())
    owner = torch.arange(6).repeat_interleave(load)
    if blocks:
        owner = torch.cat([torch.arange(6), rows.extra_X]).repeat_interleave(rows.room)
        assert len(owner) == len(rows.slot_R)
    used = rows.slot_R < 120
    assert int(used.sum()) == 120
    for expert in range(6):
        token_R = rows.token_R[used & (owner == expert)]
        assert torch.equal(token_R, (ids_MK == expert).any(dim=1).nonzero().flatten())
    assert torch.equal(rows.token_R[rows.row_MK], torch.arange(60)[:, None].expand(60, 2))


def test_shapes_on_a_device_follow_from_the_number_of_tokens() -> None:
    """However uneven the load, sorting on a device makes the same shapes, so that a captured step takes any load."""
    made = set()
    for skew in (0.0, 0.3, 3.0):
        score_ME = torch.rand(60, 6, generator=torch.Generator().manual_seed(0))
        score_ME[:, 4] += skew
        rows = sort_on_device(largest(score_ME, 2), 6, True)
        made.add((rows.room, rows.slot_R.shape, rows.token_R.shape, rows.extra_X.shape))
    assert len(made) == 1


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_grouped_products_and_their_gradients(kind: torch.dtype) -> None:
    """The grouped product's own backward pass equals torch's; experts that no row reached get a gradient of zero."""
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(24, 16, generator=generator), torch.randn(4, 16, 8, generator=generator)
    ends = torch.tensor([10, 10, 24, 24], dtype=torch.int32)
    upstream = torch.randn(24, 8, generator=generator).to(kind)
    own, plain = ([x.to(kind).requires_grad_(), w.to(kind).requires_grad_()] for _ in range(2))
    got, wanted = Grouped.apply(*own, ends), F.grouped_mm(*plain, offs=ends)
    assert torch.equal(got, wanted)
    mine, theirs = gradients(got, upstream, own), gradients(wanted, upstream, plain)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert not mine[1][[1, 3]].any()
    rubbish = torch.full((4, 2, 2), float("nan"))
    assert zero_unreached(rubbish, ends).isnan().flatten(1).all(dim=1).tolist() == [True, False, True, False]


def test_tied_logits_are_products_of_the_matrices_type() -> None:
    """With tied embeddings and bf16 matrices the logits are bf16 products of the embedding, which stays fp32."""
    from moeplan.verification.train import Flat

    model = Model(replace(MOE, tied_embeddings=True), 8, 0)
    ids = torch.randint(0, 256, (2, 8), generator=torch.Generator().manual_seed(0))
    exact = model.logits(ids)
    Flat(model, "bf16")
    low = model.logits(ids)
    assert (exact.dtype, low.dtype, model.embedding.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    assert relative(low.float(), exact) < 0.03


def test_one_expert_is_the_dense_block() -> None:
    """A layer of one expert with k = 1 computes what the dense block of that width with those weights computes."""
    layer = moe_layer(num_experts=1, active=1, shared=0)
    dense = FeedForward(16, 8).double()
    with torch.no_grad():
        dense.w_in.copy_(layer.w_in[0].T)
        dense.w_out.copy_(layer.w_out[0].T)
    x_MD = torch.randn(20, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    got, wanted = layer(x_MD), dense(x_MD)
    assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(20, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mine, theirs = gradients(got, upstream, [x_MD, layer.w_in]), gradients(wanted, upstream, [x_MD, dense.w_in])
    assert torch.allclose(mine[0], theirs[0], rtol=1e-12, atol=1e-12)
    assert torch.allclose(mine[1][0].T, theirs[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("architecture", [DENSE, MOE], ids=["dense", "moe"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_future_changes_no_past_logits(architecture: Architecture, precision: str) -> None:
    """Another token at position 11 leaves the logits before it as they were and changes those from there on."""
    model = Model(architecture, 24, 0)
    with torch.no_grad():
        assert model.head is not None
        model.head.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(0))
    if precision == "bf16":
        from moeplan.verification.train import Flat

        Flat(model, "bf16")
    ids = torch.randint(0, 256, (1, 24), generator=torch.Generator().manual_seed(1))
    other = ids.clone()
    other[0, 11] = (ids[0, 11] + 1) % 256
    with torch.no_grad():
        before, after = model.logits(ids).float(), model.logits(other).float()
    tolerance = 1e-5 if precision == "fp32" else 0.05
    assert torch.allclose(before[:, :11], after[:, :11], rtol=0, atol=tolerance * float(before.abs().max()))
    assert (before[:, 11:] - after[:, 11:]).abs().amax(dim=2).min() > 0


def test_rotary_scores_depend_on_distance_alone() -> None:
    """The product of a rotated query and key is the same wherever the pair stands, and changes with its distance."""
    cos_TR, sin_TR = (table.double() for table in rotary_table(64, 16))
    q, k = torch.randn(2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    at = [rotate(x.expand(1, 64, 1, 16), cos_TR, sin_TR)[0, :, 0] for x in (q, k)]
    scores = at[0] @ at[1].T
    for distance in (0, 3, 17):
        along = scores.diagonal(-distance)
        assert torch.allclose(along, along[:1].expand_as(along), rtol=0, atol=1e-5)  # the table is fp32
    assert abs(float(scores[20, 20] - scores[20, 3])) > 1e-3


def test_attention_by_products_is_attention() -> None:
    """The bf16 path on a CPU gives softmax(q k / sqrt(C)) v under a causal mask, to bf16's digits."""
    q, k, v = torch.randn(3, 2, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert relative(attend(q.bfloat16(), k.bfloat16(), v.bfloat16()).float(), wanted) < 0.03


def test_weights_come_from_the_seed_alone() -> None:
    """Two models of one seed are equal, those of two seeds are not; the first loss is ln(vocab_size)."""
    first, again, other = Model(MOE, 8, 1), Model(MOE, 8, 1), Model(MOE, 8, 2)
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.embedding, other.embedding)
    ids = torch.randint(0, 256, (2, 8))
    assert torch.allclose(first(ids, ids), torch.log(torch.tensor(256.0)).expand(2, 8))


def test_a_blind_router_sees_no_token() -> None:
    """In turn, every expert gets the same number of tokens and a token's experts hang on its place alone; each token
    still has as many different ones as the router would choose."""
    from moeplan.verification.model import MoE

    layer = MoE(MOE)
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_()
    layer.blind = True
    ids, weights = zip(*(layer.route(torch.randn(64, MOE.d_model)) for _ in range(2)), strict=True)
    assert torch.equal(*ids)
    assert not torch.equal(*weights)
    assert torch.equal(ids[0].flatten().bincount(), torch.full((MOE.num_experts,), 64 * 2 // MOE.num_experts))
    assert all(len(set(row)) == MOE.num_active_experts for row in ids[0].tolist())


def test_shifted_embeddings_are_those_of_the_tokens_before() -> None:
    """Of three parts the first is the token's own, the second that of the one before, the third that of the one before
    that, zeros before the first token; one part is the embedding itself, and nothing comes from a later token."""
    from moeplan.verification.model import shift

    x = torch.randn(2, 5, 9)
    y = shift(x, 3)
    assert torch.equal(shift(x, 1), x)
    assert torch.equal(y[..., :3], x[..., :3])
    assert torch.equal(y[:, 1:, 3:6], x[:, :-1, 3:6])
    assert torch.equal(y[:, 2:, 6:], x[:, :-2, 6:])
    assert not y[:, 0, 3:].any()
    assert not y[:, 1, 6:].any()
