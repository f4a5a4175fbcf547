"""Weights that a router gives the experts it chooses: one rule for proxies and for every export.

Scores are sigmoids, the k largest of score + correction bias are taken (DeepSeek-V3, arXiv 2412.19437, section 2.1.2),
and their scores are divided by their sum and multiplied by sqrt(k), so that k experts of independent outputs have the
variance of one block. Kimi K2's and Trinity Nano's config.json have the same factor for k = 8 (2.827, 2.826);
DeepSeek-V3's has 2.5. With k = 1 of several experts the score itself is the weight: one that is always 1 would teach
the router nothing.
"""

from __future__ import annotations


def normalises(num_experts: int, num_active_experts: int) -> bool:
    """Whether the scores of a token's experts are divided by their sum."""
    return num_active_experts > 1 or num_experts == 1


def expert_scale(num_active_experts: int) -> float:
    """What the weights of a token's experts add up to, where they are normalised: sqrt(k)."""
    return float(num_active_experts**0.5)
