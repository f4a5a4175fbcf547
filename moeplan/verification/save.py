"""The runs of a study as a CSV file that `moeplan fit` reads: a row a measured run, columns by the glossary."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from moeplan.architecture.conventions import Variables
from moeplan.verification.shrink import leverage_convention
from moeplan.verification.verification import RunSummary

COLUMNS = (
    "run",
    "arm",
    "loss",
    "total_params",
    "active_params",
    "tokens",
    "train_flops",
    "G",
    "shared_ratio",
    "granularity",
    "activation_ratio",
    "expansion_ratio",
    "seq_len",
    "learning_rate",
    "batch_tokens",
    "epochs",
    "seed",
)
"""train_flops as the leverage law counts: non-embedding params, full attention, no logits; params with embeddings."""


def runs_csv(runs: Iterable[RunSummary], seq_len: int) -> str:
    """Every finished run of `seq_len` tokens that was measured; tuning runs, controls and diverged ones are left out.

    A dense run has activation_ratio, expansion_ratio and G 1, shared_ratio 0.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs:
        if run.purpose == "measure" and not run.control and run.status == "finished":
            values = _values(run, seq_len)
            writer.writerow([values[name] for name in COLUMNS])
    return out.getvalue()


def _values(run: RunSummary, seq_len: int) -> dict[str, object]:
    shape = run.architecture
    variables = Variables(shape, seq_len)
    values: dict[str, object] = {
        "run": run.digest,
        "arm": run.arm,
        "loss": f"{run.loss:.8g}",
        "total_params": shape.total_params(),
        "active_params": shape.active_params(),
        "tokens": run.tokens,
        "train_flops": round(variables.get("train_flops", leverage_convention(), float(run.tokens))),
        "learning_rate": run.learning_rate,
        "batch_tokens": run.batch_tokens,
        "epochs": f"{run.epochs:.6g}",
        "seed": run.seed,
        "seq_len": seq_len,
    }
    for name in ("G", "shared_ratio", "granularity", "activation_ratio", "expansion_ratio"):
        values[name] = f"{float(variables.get(name)):.10g}"
    return values
