"""The ratios of a model's experts, each defined once, for one architecture or a grid of them.

As in `moeplan.architecture.counting`, a *shape* is anything with the fields of
`moeplan.architecture.shape.Architecture`; sizes may be integers or int64 arrays of equal length, and ratios are floats
or float64 arrays. A dense model is one expert that is always active. Routed experts in a latent width count as as many
as would cost the same in the model's own: laws, none of which measured any, judge the plain design of equal cost.
"""

from __future__ import annotations

from typing import Any

from moeplan.numerics.elementwise import anywhere, where

Shape = Any
Value = Any  # float or float64 array, as the shape's sizes are


def as_float(count: Any) -> Value:
    """A count as float64, so that products of large ones cannot overflow."""
    return float(count) if isinstance(count, int) else count.astype(float)


def is_dense(shape: Shape) -> bool:
    """Whether a shape has no experts; no shape of a grid is."""
    return isinstance(shape.num_experts, int) and shape.num_experts == 0


def experts(shape: Shape) -> tuple[Value, Value, Value]:
    """Routed, active and shared experts a layer."""
    if is_dense(shape):
        return 1.0, 1.0, 0.0
    routed, active, shared = shape.num_experts, shape.num_active_experts, shape.num_shared_experts
    if anywhere(shape.d_latent):
        share = where(shape.d_latent > 0, shape.d_latent / shape.d_model, 1.0)
        return as_float(routed) * share, as_float(active) * share, as_float(shared)
    return as_float(routed), as_float(active), as_float(shared)


def activation_ratio(shape: Shape, *, with_shared: bool = False) -> Value:
    """A = num_active_experts / num_experts; `with_shared` adds the shared experts to both."""
    routed, active, shared = experts(shape)
    return (active + shared) / (routed + shared) if with_shared else active / routed


def expansion_ratio(shape: Shape, *, with_shared: bool = True) -> Value:
    """Total expert width / active expert width, shared experts in both or in neither."""
    routed, active, shared = experts(shape)
    if is_dense(shape) or not with_shared:
        return routed / active
    # Shared experts in units of a routed one: equal widths give the same ratio to the last bit.
    shared = shared * (as_float(shape.d_shared_expert) / as_float(shape.d_expert))
    return (routed + shared) / (active + shared)


def granularity(shape: Shape, *, factor: float = 2) -> Value:
    """g = factor * d_model / d_expert, of a dense model's d_ff."""
    return factor * (as_float(shape.d_model) / (shape.d_ff if is_dense(shape) else shape.d_expert))


def active_experts(shape: Shape) -> Value:
    """G = active + shared experts of a token."""
    _, active, shared = experts(shape)
    return active + shared


def shared_ratio(shape: Shape) -> Value:
    """S = shared / (active + shared) experts."""
    return experts(shape)[2] / active_experts(shape)
