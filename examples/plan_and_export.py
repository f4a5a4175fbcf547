"""Plan a model, see how far the laws agree, write a trainer's file: `python examples/plan_and_export.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from moeplan import Budget, recommend
from moeplan.plan.export import export


def main() -> None:
    """Plan, print what each law says of it, write plan.json and a Hugging Face config.json."""
    folder = Path(sys.argv[1])
    plan = recommend(Budget("1e21", "24GB"))
    leverage = plan.leverage.pooled
    print(f"Efficiency Leverage {leverage.middle:.2g} ({leverage.low:.2g} to {leverage.high:.2g})")
    for opinion in plan.laws:
        if opinion.efficiency:
            print(f"  {opinion.law}: worth {opinion.efficiency:.0%} of the law's own best design, in compute")
    (folder / "plan.json").write_text(plan.to_text(), encoding="utf-8")
    (folder / "config.json").write_text(export(plan, "hf"), encoding="utf-8")


if __name__ == "__main__":
    main()
