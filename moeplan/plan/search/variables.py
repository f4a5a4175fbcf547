"""The variables of a design that people fix, bound and read bands of: names, kinds, values; and `Design`, all of them.

A new variable is an entry of `moeplan.quantities.QUANTITIES`, which says what it is and how it is written, one of
`DESIGN_VARIABLES`, and a field of `Design`, in the same place of both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.plan.search.grid import AXES
from moeplan.quantities import FLOPS, QUANTITIES

Of = Callable[[Variables, Any], Any]
"""Values of a variable for designs (one or a grid of them) trained on tokens."""


@dataclass(frozen=True)
class DesignVariable:
    """One variable of a design."""

    name: str
    """Its name in flags, JSON and Python."""
    integer: bool
    """Whether it is fixed exactly (integers) or within 2 % (real values)."""
    value: Of | None = None
    """Its values, where it is neither an axis of the grid nor a variable of laws."""

    @property
    def meaning(self) -> str:
        """What it is."""
        return QUANTITIES[self.name].meaning

    def of(self, v: Variables, tokens: Any) -> Any:
        """Its values for designs trained on `tokens`."""
        if self.value is not None:
            return self.value(v, tokens)
        return getattr(v.shape, self.name) if self.name in AXES else v.get(self.name, "", tokens)


DESIGN_VARIABLES: dict[str, DesignVariable] = {
    entry[0]: DesignVariable(*entry)
    for entry in (
        ("total_params", False),
        ("active_params", False),
        ("active_param_ratio", False, lambda v, _: v.get("active_params") / v.get("total_params")),
        ("tokens", False),
        ("tokens_per_param", False),
        ("G", True),
        ("shared_ratio", False),
        ("granularity", False),
        ("activation_ratio", False),
        ("expansion_ratio", False),
        ("num_experts", True),
        ("num_active_experts", True),
        ("num_shared_experts", True),
        ("d_expert", True),
        ("d_model", True),
        ("num_layers", True),
        ("num_heads", True),
        ("attention_share", False, lambda v, _: v.shape.attention_share),
        ("num_dense_layers", True),
    )
}
"""Every design variable by name."""


@dataclass(frozen=True)
class Design:
    """A design in numbers: every design variable with its value; `moeplan.quantities` says what each is."""

    total_params: int
    active_params: int
    active_param_ratio: float
    tokens: int
    tokens_per_param: float
    G: int
    shared_ratio: float
    granularity: float
    activation_ratio: float
    expansion_ratio: float
    num_experts: int
    num_active_experts: int
    num_shared_experts: int
    d_expert: int
    d_model: int
    num_layers: int
    num_heads: int
    attention_share: float
    num_dense_layers: int
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
