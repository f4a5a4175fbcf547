"""What choosing at equal time is worth beside choosing at equal compute: `python -m tests.benchmarks.equal_time`.

Both designs train for the same days on the same GPUs, each under its fastest layout. The gain in V is given as
predicted, and over 200 draws of the throughput model's fitted constants (each by its standard error, the two designs by
the same constants) together with an independent error of each design's speed, as wide as the model's error from design
to design (`Band.design_ln_sd`). The rows are those of a table of docs/accuracy.md.
"""

from __future__ import annotations

import math

import numpy as np

from moeplan.cost.devices import bundled
from moeplan.cost.training.throughput.settings import Constants, band, constants
from moeplan.cost.training.throughput.step import step_time
from moeplan.numerics import Floats
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice, choose_design, make_space
from moeplan.plan.law_selection import select_laws
from moeplan.plan.search.space import Space

REQUESTS = (("256xH100", "bf16"), ("256xH100", "fp8"), ("64xGB200", "bf16"), ("64xGB200", "mxfp8"))
DRAWS = 200


def ln_value(space: Space, choice: Choice, tokens: Floats) -> Floats:
    """ln V of a chosen design trained on so many tokens, each in turn."""
    alone = space.gather(np.full(len(tokens), choice.index))
    flops = tokens * space.flops_per_token[choice.index]
    return alone.judge(lambda part: (flops[part], flops[part])).unlimited_mean(choice.laws)


def drawn_constants(random: np.random.Generator) -> Constants:
    """The fitted constants, each off by its standard error."""
    rows = bundled("throughput.yaml").section("constants")
    errors = {name: rows.section(name).number("ln_stderr", 0.0) for name in rows}
    return constants().scaled(**{name: float(np.exp(random.normal(0, sd))) for name, sd in errors.items()})


def tokens_of(space: Space, choice: Choice, fitted: Constants) -> float:
    """Training tokens of a chosen design in the days of its budget, by these constants, under its fastest layout."""
    assert choice.clock is not None
    trainer, spread = choice.clock.trainer, choice.clock.speeds.spread(choice.index)
    assert spread is not None
    time = step_time(
        choice.architecture,
        spread.layout,
        trainer.gpus.device,
        spread.batch,
        trainer.seq_len,
        precision=trainer.precision,
        software=trainer.software,
        fitted=fitted,
    )
    return trainer.scale * spread.batch * trainer.seq_len / float(time.total) * space.budget.seconds


def main() -> None:
    """Print a row for each request."""
    laws = select_laws(None).objective
    print("| request, 30 days, served by 8x80GB | predicted | median of draws | 80 % of draws | losses | designs |")
    print("|---|---|---|---|---|---|")
    for gpus, precision in REQUESTS:
        asked = {"memory": "8x80GB", "gpus": gpus, "days": 30.0, "train_precision": precision}
        space = make_space(Budget(**asked), laws)  # type: ignore[arg-type]
        timed = choose_design(space, laws, opinions=False)
        equal = choose_design(space.at(Budget(**asked, optimise="flops")), laws, opinions=False)  # type: ignore[arg-type]
        random = np.random.default_rng(0)
        draws = [constants(), *(drawn_constants(random) for _ in range(DRAWS))]
        errors = np.exp(random.normal(0, band().design_ln_sd, (DRAWS + 1, 2)))
        errors[0] = 1  # the first is as predicted
        tokens = (
            np.array([[tokens_of(space, choice, fitted) for choice in (timed, equal)] for fitted in draws]) * errors
        )
        gains = ln_value(space, timed, tokens[:, 0]) - ln_value(space, equal, tokens[:, 1])
        low, middle, high = (100 * math.expm1(x) for x in np.percentile(gains[1:], [10, 50, 90]))
        shapes = " to ".join(
            f"g {c.architecture.granularity:.2g}, k {c.architecture.num_active_experts}, "
            f"E {c.architecture.num_experts}, N_a {c.architecture.active_params() / 1e9:.1f}B"
            for c in (equal, timed)
        )
        print(
            f"| {gpus}, {precision} | {100 * math.expm1(gains[0]):+.1f} % | {middle:+.1f} % "
            f"| {low:+.0f} to {high:+.0f} % | {np.mean(gains[1:] < 0):.0%} | {shapes} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
