"""What choosing at equal time is worth beside choosing at equal compute: `python -m tests.benchmarks.equal_time`.

Both designs train for the same days on the same GPUs. The gain in V is given as predicted, and over 200 draws of an
error of each design's speed, as wide as the model's error from design to design (`Band.design_ln_sd`).
"""

from __future__ import annotations

import math

import numpy as np

from moeplan.cost.training.throughput.settings import band
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice, choose_design, make_space
from moeplan.plan.law_selection import select_laws
from moeplan.plan.search.space import Space

REQUESTS = (("256xH100", "bf16"), ("256xH100", "fp8"), ("64xGB200", "bf16"), ("64xGB200", "mxfp8"))
DRAWS = 200


def ln_value(space: Space, choice: Choice, tokens: float) -> float:
    """ln V of a chosen design trained on so many tokens."""
    flops = np.full(len(space), 1e20)
    flops[choice.index] = tokens * space.flops_per_token[choice.index]
    alone = np.zeros(len(space), dtype=bool)
    alone[choice.index] = True
    return float(space.take(alone).judge(flops[alone]).unlimited_mean(choice.laws)[0])


def main() -> None:
    """Print a line for each request."""
    laws = select_laws(None).objective
    for gpus, precision in REQUESTS:
        asked = {"memory": "8x80GB", "gpus": gpus, "days": 30.0, "train_precision": precision}
        budget = Budget(**asked)  # type: ignore[arg-type]
        space = make_space(budget, laws, threads=2)
        timed = choose_design(space, laws, opinions=False)
        equal = choose_design(space.at(Budget(**asked, optimise="flops")), laws, opinions=False)  # type: ignore[arg-type]
        assert timed.clock is not None
        assert equal.clock is not None
        speeds = [choice.clock.speeds.tokens_per_second[choice.index] for choice in (timed, equal) if choice.clock]
        tokens = [float(speed) * budget.seconds for speed in speeds]
        predicted = ln_value(space, timed, tokens[0]) - ln_value(space, equal, tokens[1])
        errors = np.exp(np.random.default_rng(0).normal(0, band().design_ln_sd, (DRAWS, 2)))
        gains = np.array(
            [ln_value(space, timed, tokens[0] * a) - ln_value(space, equal, tokens[1] * b) for a, b in errors]
        )
        low, middle, high = (100 * math.expm1(x) for x in np.percentile(gains, [10, 50, 90]))
        shapes = " -> ".join(
            f"g {c.architecture.granularity:.2g}, k {c.architecture.num_active_experts}, "
            f"E {c.architecture.num_experts}, N_a {c.architecture.active_params() / 1e9:.1f}B"
            for c in (equal, timed)
        )
        print(
            f"{gpus} {precision}: {100 * math.expm1(predicted):+.1f} % of V as predicted; with errors median "
            f"{middle:+.1f} %, 80 % from {low:+.0f} to {high:+.0f} %, a loss in {np.mean(gains < 0):.0%}; {shapes}"
        )


if __name__ == "__main__":
    main()
