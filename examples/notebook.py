"""A notebook as a script, cell by cell: `python examples/notebook.py FOLDER`; pandas makes the tables.

Editors that know `# %%` run it one cell at a time.
"""

# %% A plan, and what else would be nearly as good.
from __future__ import annotations

import sys
from pathlib import Path

from moeplan import Budget, compare, export, frontier, inspect, recommend

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
budget = Budget("1e21", "24GB", context=16384, concurrency=4)
plan = recommend(budget)
print(plan.to_frame("near_equal")[["rule", "total_params", "active_params", "value_share"]].to_string())

# %% Every design within 2 % of the best: how few experts would do?
near = plan.candidates(within=0.02)
print(near.to_frame().groupby("num_active_experts").value_share.max())
near.write(folder / "candidates.csv")

# %% What would more memory buy?
curve = frontier(budget, memory="12GB..96GB", points=4)
print(curve.to_frame()[["memory", "total_params", "value_ratio", "pooled_low", "pooled_high"]].to_string())

plan.plot("memory").save(folder / "memory.svg")  # in a notebook plan.plot() shows it
curve.plot().save(folder / "frontier.svg")

# %% Beside dense models, and beside a published one.
print(compare(budget).to_frame()[["name", "total_params", "active_params", "serving_bytes"]].to_string())
published = inspect("qwen3-30b-a3b", memory="80GB", context=16384)
print(published.name, published.active_params)

# %% Hand it over.
(folder / "plan.json").write_text(plan.to_text(), encoding="utf-8")
(folder / "config.json").write_text(export(plan, "hf"), encoding="utf-8")
