"""Plans to export: designs of the declared grid at every size, latent attention, no shared experts, dense models."""

from __future__ import annotations

import dataclasses

from moeplan.architecture.proportions import dense_shape
from moeplan.architecture.shape import Architecture
from moeplan.plan.document import Plan
from moeplan.plan.search.grid import Grid
from tests.sample import sample_plan

WIDTHS = (512, 768, 1024, 2048, 4096, 6144, 10240)


def _designs(name: str, grid: Grid) -> dict[str, Architecture]:
    """One design of each width, from another place of the grid each time."""
    found = {}
    for place, width in enumerate(WIDTHS):
        block = grid.block(width)
        assert block is not None
        found[f"{name}-{width}"] = block.architecture((place + 1) * len(block) // (len(WIDTHS) + 1))
    return found


_GQA = Grid(num_experts=(16, 64, 256), attention_share=(0.1, 0.9))
SHAPES: dict[str, Architecture] = {
    **_designs("gqa", _GQA),
    **_designs("gqa-two-shared", dataclasses.replace(_GQA, num_shared_experts=(2,), vocab_size=49152)),
    **_designs("gqa-no-shared", dataclasses.replace(_GQA, num_shared_experts=(0,), tied_embeddings=True)),
    **_designs("mla", dataclasses.replace(_GQA, attention="mla")),
}
SHAPES |= {f"dense-{width}": dense_shape(width, SHAPES["gqa-512"]) for width in WIDTHS}
SHAPES |= {
    f"dense-plain-{width}": dataclasses.replace(SHAPES[f"dense-{width}"], qk_norm="none") for width in (768, 4096)
}
SHAPES |= {"dense-mla-2048": dense_shape(2048, SHAPES["mla-2048"])}
TINY = Architecture(
    d_model=64, num_layers=3, vocab_size=256, num_heads=4, num_kv_heads=2, head_dim=16, num_experts=8,
    num_active_experts=2, d_expert=32, num_shared_experts=1, num_dense_layers=1, d_ff=96, qk_norm="head",
)  # fmt: skip
"""Small enough to run."""


def plan_of(shape: Architecture) -> Plan:
    """A plan whose model is `shape`, for Megatron's optimizer, with no layout."""
    plan = with_layouts(shape)
    return dataclasses.replace(plan, training=dataclasses.replace(plan.training, layouts=()))


def with_layouts(shape: Architecture) -> Plan:
    """The same with the sample plan's layout."""
    plan = sample_plan(architecture=shape)
    return dataclasses.replace(
        plan,
        request=dataclasses.replace(plan.request, optimizer="megatron"),
        design=dataclasses.replace(plan.design, total_params=shape.total_params(), active_params=shape.active_params()),
    )
