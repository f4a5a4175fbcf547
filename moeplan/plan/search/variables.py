"""The variables of a design that people fix, bound and read bands of: names, kinds, values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moeplan.architecture.conventions import Variables
from moeplan.plan.search.grid import AXES


@dataclass(frozen=True)
class DesignVariable:
    """One variable of a design."""

    name: str
    """Its name in flags, JSON and Python."""
    integer: bool
    """Whether it is fixed exactly (integers) or within 2 % (real values)."""
    meaning: str
    """What it is, with its unit."""

    def of(self, v: Variables, tokens: Any) -> Any:
        """Its values for designs trained on `tokens`."""
        if self.name in AXES or self.name == "attention_share":
            return getattr(v.shape, self.name)
        if self.name == "active_param_ratio":
            return v.get("active_params") / v.get("total_params")
        return v.get(self.name, "", tokens)


DESIGN_VARIABLES: dict[str, DesignVariable] = {
    name: DesignVariable(name, integer, meaning)
    for name, integer, meaning in (
        ("total_params", False, "N: params, embeddings included"),
        ("active_params", False, "N_a: params a token passes through, embeddings included"),
        ("active_param_ratio", False, "N_a/N"),
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
        ("attention_share", False, "attention's share of a MoE block's FLOPs"),
    )
}
"""Every design variable by name."""
