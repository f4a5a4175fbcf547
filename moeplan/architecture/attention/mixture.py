"""Experts in attention (mixture of attention heads, Zhang et al., arXiv 2210.05144; JetMoE, arXiv 2404.07413)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from moeplan.architecture.attention.gqa import GroupedQueryAttention
from moeplan.architecture.attention.kind import Attention, Matrix, Size
from moeplan.records import Word


@dataclass(frozen=True, kw_only=True)
class MixtureOfAttention(GroupedQueryAttention):
    """Each expert is a query and an output map with as many heads as there are keys and values, which all share.

    `num_heads` counts the heads that one token has: num_active_experts * num_kv_heads.
    """

    kind: Word = field(init=False, default="mixture")
    label: ClassVar[str] = "mixture of attention"
    trainable: ClassVar[bool] = False

    num_experts: int
    """Experts."""
    num_active_experts: int
    """Experts that a token reaches."""

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Keys and values, router, and the two maps of every expert."""
        keys = self.num_kv_heads * self.head_dim
        return [
            (d_model, 2 * keys),
            (d_model, self.num_experts),
            *self.num_experts * [(d_model, keys), (keys, d_model)],
        ]

    def stored_matrices(self, d_model: Size) -> list[Matrix]:
        return Attention.stored_matrices(self, d_model)

    def vectors(self, d_model: Size) -> Size:
        """The bias of its output."""
        return d_model

    def idle_params(self, d_model: Size) -> Size:
        idle = self.num_experts - self.num_active_experts
        return idle * 2 * d_model * self.num_kv_heads * self.head_dim

    def words(self) -> str:
        return f"{super().words()}, {self.num_active_experts} of {self.num_experts} experts of them"
