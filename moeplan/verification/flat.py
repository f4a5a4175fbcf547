"""All trained params of a proxy in one vector, as its optimizer sees them."""

from __future__ import annotations

import torch

from moeplan.verification.model import Model

CLIP = 1.0
"""Largest norm of all gradients together."""


class Flat:
    """All trained params of a model in one fp32 vector: matrices first, then the router, then embedding and norms.

    The model's own params become views of it, or of a bf16 copy of its matrices. One vector means one kernel for
    clipping and one for AdamW of each part, however many layers there are.
    """

    def __init__(self, model: Model, precision: str) -> None:
        vectors = {model.embedding, *(p for p in model.parameters() if p.ndim == 1)}
        routers = {layer.router for layer in model.moe_layers}
        trained = [p for p in model.parameters() if p.requires_grad]
        low = [p for p in trained if p not in vectors and p not in routers]
        parts = (low, [p for p in trained if p in routers], [p for p in trained if p in vectors])
        self.params = [p for part in parts for p in part]
        self.halves = (low, self.params[len(low) :])
        self.sizes = [sum(p.numel() for p in part) for part in parts]
        device = model.embedding.device
        self.master = torch.cat([p.detach().flatten() for p in self.params])
        self.grad = torch.zeros_like(self.master)
        self.low = torch.empty(self.sizes[0], device=device, dtype=torch.bfloat16) if precision == "bf16" else None
        start = 0
        for p in self.params:
            source = self.low if self.low is not None and start < self.sizes[0] else self.master
            p.data = source[start : start + p.numel()].view_as(p)
            start += p.numel()
        self.publish()

    def publish(self) -> None:
        """Round the matrices' masters into the copy that the model computes with."""
        if self.low is not None:
            self.low.copy_(self.master[: self.sizes[0]])

    def collect(self, *, add: bool) -> None:
        """Gradients of the model into the fp32 vector, or added to what is there."""
        start = 0
        for part in self.halves:  # of one type each
            grad = torch.cat([p.grad.flatten() for p in part if p.grad is not None])
            kept = self.grad[start : start + len(grad)]
            kept.add_(grad) if add else kept.copy_(grad)
            start += len(grad)
        for p in self.params:
            p.grad = None

    def clip(self) -> None:
        """Shorten the gradient to a norm of `CLIP` at most."""
        self.grad.mul_((CLIP / (self.grad.norm() + 1e-6)).clamp(max=1.0))
