"""Fit a law to your own runs and plan by it: `python examples/own_law.py FOLDER`.

The runs are simulated here, from the bundled law ludziejewski2025 with a scatter of 0.3 %. Put your own table in the
place of FOLDER/runs.csv and leave `simulate_runs` out. So few runs leave single coefficients open, so a published law
of the same form is given as the prior.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from moeplan import Budget, fit, law_text, load_law, recommend


def simulate_runs(path: Path) -> None:
    """Write 36 runs: three sizes, three lengths and four numbers of experts."""
    law = load_law("ludziejewski2025").predicting("loss")
    draw = random.Random(0)
    lines = ["active_params,tokens,expansion_ratio,loss"]
    for active_params in (1e8, 4e8, 1.6e9):
        for tokens_per_param in (10, 25, 60):
            for expansion_ratio in (1, 4, 16, 32):
                tokens = active_params * tokens_per_param
                values = {"active_params": active_params, "tokens": tokens, "expansion_ratio": expansion_ratio}
                loss = law(*(values[name] for name in law.variables)) * draw.gauss(1, 0.003)
                lines.append(f"{active_params:g},{tokens:g},{expansion_ratio},{loss:.4f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Simulate, fit, write the law, plan."""
    folder = Path(sys.argv[1])
    runs, law_file = folder / "runs.csv", folder / "my_law.yaml"
    simulate_runs(runs)
    fitted = fit(runs, form="ludziejewski2025", prior="ludziejewski2025", draws=200)
    law_file.write_text(law_text(fitted), encoding="utf-8")
    print(f"{fitted.form} fitted to {fitted.runs.used} runs:")
    for coefficient in fitted.coefficients:
        print(f"  {coefficient.name:6} {coefficient.value:.4g}  ({coefficient.low:.4g} to {coefficient.high:.4g})")
    plan = recommend(Budget("1e21", "24GB"), laws=[law_file])
    shape = plan.architecture
    print(
        f"For 1e21 FLOPs and 24GB by this law: {shape.num_layers} layers of {shape.d_model}, "
        f"{shape.num_active_experts}+{shape.num_shared_experts} of {shape.num_experts} experts, "
        f"{plan.design.tokens:.3g} tokens"
    )


if __name__ == "__main__":
    main()
