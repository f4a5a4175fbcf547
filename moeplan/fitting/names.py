"""Which column of a runs file is which quantity: glossary names, aliases, and the conventions that aliases state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moeplan.architecture.conventions import ARCHITECTURAL, CONVENTIONS
from moeplan.errors import UsageError
from moeplan.laws.law import PREDICTS
from moeplan.laws.signatures import FORMS, form_variables

SHAPE_FIELDS = (
    "d_model",
    "num_layers",
    "vocab_size",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "d_ff",
    "num_active_experts",
    "d_expert",
    "num_shared_experts",
    "d_shared_expert",
    "num_dense_layers",
)
"""Columns that describe an architecture, by the fields of `moeplan.architecture.shape.Architecture`."""
TRAINING = ("learning_rate", "batch_tokens", "steps", "seq_len", "seed")
"""Columns that say how a run was trained."""
QUANTITIES = tuple(
    dict.fromkeys(
        [*ARCHITECTURAL, *(v for form in FORMS for v in form_variables(form)), *PREDICTS, *SHAPE_FIELDS, *TRAINING]
    )
)
"""Every name that a column can have."""
_EXACT = {
    "N": "total_params",
    "Na": "active_params",
    "N_a": "active_params",
    "D": "tokens",
    "C": "train_flops",
    "E": "num_experts",
    "k": "num_active_experts",
    "S": "shared_ratio",
    "L": "loss",
    "EL": "efficiency_leverage",
    "A": "activation_ratio",
}
"""Letters as the papers use them; case matters."""
_ALIASES = {
    "total_params": "params n_params num_params parameters num_parameters total_parameters model_size model_params "
    "size total_parameter_count parameter_count",
    "active_params": "active_parameters n_active active dense_parameter_count activated_params activated_parameters",
    "tokens": "training_tokens train_tokens n_tokens num_tokens tokens_seen total_tokens",
    "train_flops": "flops training_flops training_flop train_flop flop compute budget training_compute",
    "loss": "loss_validation validation_loss val_loss eval_loss final_loss test_loss",
    "num_experts": "experts n_experts num_routed_experts n_routed_experts",
    "num_active_experts": "top_k topk num_experts_per_tok num_experts_per_token",
    "num_shared_experts": "n_shared_experts shared_experts",
    "expansion_ratio": "expansion expansion_rate",
    "efficiency_leverage": "leverage",
    "learning_rate": "lr peak_lr max_lr peak_learning_rate",
    "batch_tokens": "batch_size_tokens tokens_per_batch",
    "num_layers": "layers n_layers num_blocks depth",
    "d_model": "width hidden_size d_hidden",
    "num_heads": "heads n_heads num_attention_heads",
    "vocab_size": "vocab",
    "seq_len": "sequence_length context_length",
    "unique_tokens": "num_unique_tokens",
}
_BY_ALIAS = {alias: name for name, aliases in _ALIASES.items() for alias in aliases.split()}
_NON_EMBEDDING = re.compile(r"_?(non_?emb(edding)?s?|no_?emb(edding)?s?)_?")


@dataclass(frozen=True)
class Naming:
    """Which column holds which quantity."""

    columns: Mapping[str, str]
    """Column by quantity."""
    conventions: Mapping[str, str]
    """Conventions that the columns' own names state, by quantity."""

    @property
    def aliases(self) -> dict[str, str]:
        """Quantities whose column has another name, with that name."""
        return {name: column for name, column in self.columns.items() if name != column}


def name_columns(columns: Iterable[str], given: Mapping[str, str], file: str) -> Naming:
    """Find the quantity of each column: as `given` (quantity: column), by its own name, or by an alias.

    Raises `UsageError` for a given column that is not there, a quantity that is not known, and two columns that are
    one quantity.
    """
    columns = list(columns)
    found: dict[str, str] = {}
    conventions: dict[str, str] = {}
    for name, column in given.items():
        if name not in QUANTITIES:
            raise UsageError(f"{name!r} is no quantity that runs have; known are {', '.join(sorted(QUANTITIES))}")
        if column not in columns:
            raise UsageError(f"{file}: has no column {column!r} for {name}; its columns are {', '.join(columns)}")
        found[name] = column
        _, convention = _meaning(column)
        if convention and name in CONVENTIONS and convention in CONVENTIONS[name]:
            conventions[name] = convention
    for column in columns:
        if column in found.values():
            continue
        quantity, convention = _meaning(column)
        if not quantity or quantity in given:
            continue
        if quantity in found:
            raise UsageError(
                f"{file}: columns {found[quantity]!r} and {column!r} both mean {quantity}; choose with "
                f"--map {quantity}={column}"
            )
        found[quantity] = column
        if convention:
            conventions[quantity] = convention
    return Naming(found, conventions)


def _meaning(column: str) -> tuple[str, str]:
    """The quantity of a column's name ("" for none) and the convention that the name states."""
    if column in QUANTITIES:
        return column, ""
    if column in _EXACT:
        return _EXACT[column], ""
    word = re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")
    plain = _NON_EMBEDDING.sub("_", word).strip("_")
    convention = "non_embedding" if plain != word else ""
    for candidate in dict.fromkeys((word, plain)):
        name = candidate if candidate in QUANTITIES else _BY_ALIAS.get(candidate, "")
        if name and (not convention or name in ("total_params", "active_params")):
            return name, convention
    return "", ""
