"""Which law plays which part unless told otherwise: the only place that names them."""

from __future__ import annotations

LEVERAGE_LAW = "tian2025"
"""The law whose FLOPs a dense model's work is counted in, whose split of compute into size and tokens a misallocated
budget is discounted by, and whose own leverage stands beside the pooled one."""
OBJECTIVE_LAWS = (LEVERAGE_LAW, "zhao2025", "ludziejewski2025", "abnar2025")
"""The laws whose geometric mean is maximised."""
SECOND_OPINIONS = ("krajewski2024", "clark2022", "marin2026", "wan2026")
"""Laws shown beside them, outside the mean."""
POOLED_LAWS = (LEVERAGE_LAW, "ludziejewski2025", "abnar2025", "krajewski2024", "clark2022")
"""The laws whose leverage is pooled into the headline: those that know dense models, one a publication."""
HYPERPARAMETER_LAWS = (LEVERAGE_LAW, "steplaw2025")
"""Laws asked for learning rate and batch; the first one's are exported."""
DENSE_ALLOCATION_LAWS = ("hoffmann2022", "besiroglu2024", "llama3", "deepseek2024")
"""Laws of dense models alone, which would split a compute budget their own way."""
