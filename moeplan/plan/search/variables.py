"""The variables of a design that people fix, bound and read bands of: names, kinds, values; and `Design`, all of them.

A new variable is an entry of `DESIGN_VARIABLES` and a field of `Design`, in the same place of both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.plan.search.grid import AXES
from moeplan.quantities import FLOPS

Of = Callable[[Variables, Any], Any]
"""Values of a variable for designs (one or a grid of them) trained on tokens."""


@dataclass(frozen=True)
class DesignVariable:
    """One variable of a design."""

    name: str
    """Its name in flags, JSON and Python."""
    integer: bool
    """Whether it is fixed exactly (integers) or within 2 % (real values)."""
    meaning: str
    """What it is, with its unit."""
    value: Of | None = None
    """Its values, where it is neither an axis of the grid nor a variable of laws."""

    def of(self, v: Variables, tokens: Any) -> Any:
        """Its values for designs trained on `tokens`."""
        if self.value is not None:
            return self.value(v, tokens)
        return getattr(v.shape, self.name) if self.name in AXES else v.get(self.name, "", tokens)


DESIGN_VARIABLES: dict[str, DesignVariable] = {
    entry[0]: DesignVariable(*entry)
    for entry in (
        ("total_params", False, "N: params, embeddings included"),
        ("active_params", False, "N_a: params a token passes through, embeddings included"),
        ("active_param_ratio", False, "N_a/N", lambda v, _: v.get("active_params") / v.get("total_params")),
        ("tokens", False, "D: training tokens"),
        ("tokens_per_param", False, "D/N_a: tokens per active param"),
        ("G", True, "active experts per token including shared ones"),
        ("shared_ratio", False, "S = shared/(active + shared) experts"),
        ("granularity", False, "2*d_model/d_expert"),
        ("activation_ratio", False, "A = num_active_experts/num_experts, routed only"),
        ("expansion_ratio", False, "total expert width / active expert width"),
        ("num_experts", True, "routed experts a layer"),
        ("num_active_experts", True, "routed experts a token reaches"),
        ("num_shared_experts", True, "shared experts a layer"),
        ("d_expert", True, "width of one expert"),
        ("d_model", True, "width of the residual stream"),
        ("num_layers", True, "blocks"),
        ("num_heads", True, "query heads"),
        ("attention_share", False, "attention's share of a MoE block's FLOPs", lambda v, _: v.shape.attention_share),
    )
}
"""Every design variable by name."""


@dataclass(frozen=True)
class Design:
    """A design in numbers: every design variable with its value."""

    total_params: int
    """N [params], embeddings included."""
    active_params: int
    """N_a [params], what a token passes through, embeddings included."""
    active_param_ratio: float
    """N_a/N."""
    tokens: int
    """D, training tokens."""
    tokens_per_param: float
    """D/N_a, tokens per active param."""
    G: int
    """Active experts per token including shared ones."""
    shared_ratio: float
    """S = shared/(active + shared) experts."""
    granularity: float
    """2*d_model/d_expert."""
    activation_ratio: float
    """A = num_active_experts/num_experts, routed only."""
    expansion_ratio: float
    """Total expert width / active expert width, shared included."""
    num_experts: int
    """Routed experts a MoE layer."""
    num_active_experts: int
    """Routed experts a token reaches."""
    num_shared_experts: int
    """Shared experts a MoE layer."""
    d_expert: int
    """Width of one expert [features]."""
    d_model: int
    """Width of the residual stream [features]."""
    num_layers: int
    """Blocks."""
    num_heads: int
    """Query heads."""
    attention_share: float
    """Attention's share of a MoE block's FLOPs (full attention, active experts, no router)."""
    value: Annotated[float, FLOPS]
    """V [FLOPs], the geometric mean of C_l over the chosen laws."""
    efficiency_leverage: float
    """EL by the leverage law."""


assert tuple(DESIGN_VARIABLES) == tuple(f.name for f in dataclasses.fields(Design))[: len(DESIGN_VARIABLES)]


def design_of(v: Variables, tokens: int, value: float, efficiency_leverage: float) -> Design:
    """One design of a grid in numbers; `v` has it alone, as arrays of length 1."""
    kinds = {f.name: int if f.type == "int" else float for f in dataclasses.fields(Design)}
    numbers = {name: np.ravel(variable.of(v, np.array([tokens])))[0] for name, variable in DESIGN_VARIABLES.items()}
    own: dict[str, Any] = {name: kinds[name](number) for name, number in numbers.items()}
    return Design(**own, value=value, efficiency_leverage=efficiency_leverage)
