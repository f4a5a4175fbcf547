"""Which column of a runs file is which quantity: glossary names, aliases, and the conventions that aliases state."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from moeplan.architecture.conventions import ARCHITECTURAL, CONVENTIONS
from moeplan.errors import UsageError
from moeplan.fitting.cells import PERCENT, UNITS, unit_of_header
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
TRAINING = ("learning_rate", "batch_tokens", "batch_sequences", "steps", "seq_len", "seed")
"""Columns that say how a run was trained."""
HOW_TRAINED = ("learning_rate", "batch_tokens", "batch_sequences", "steps", "seed")
"""Those of them that a sweep varies while the model and its tokens stay."""
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
    "tokens": "training_tokens train_tokens n_tokens num_tokens tokens_seen total_tokens tokens_trained trained_tokens",
    "train_flops": "flops training_flops training_flop train_flop flop compute budget training_compute",
    "loss": "loss_validation validation_loss val_loss eval_loss final_loss test_loss "
    "cross_entropy val_cross_entropy val_ce val_nll",
    "num_experts": "experts n_experts num_routed_experts n_routed_experts",
    "num_active_experts": "top_k topk num_experts_per_tok num_experts_per_token",
    "num_shared_experts": "n_shared_experts shared_experts",
    "expansion_ratio": "expansion expansion_rate",
    "efficiency_leverage": "leverage",
    "learning_rate": "lr peak_lr max_lr peak_learning_rate",
    "batch_tokens": "batch_size_tokens tokens_per_batch",
    "batch_sequences": "global_batch_size batch_size_sequences sequences_per_batch",
    "steps": "num_steps n_steps max_steps train_steps training_steps total_steps train_iters iterations",
    "tokens_per_param": "tokens_per_parameter tpp",
    "num_layers": "layers n_layers num_blocks depth",
    "d_model": "width hidden_size d_hidden",
    "num_heads": "heads n_heads num_attention_heads",
    "vocab_size": "vocab",
    "seq_len": "seq_length sequence_length context_length",
    "unique_tokens": "num_unique_tokens",
}
_BY_ALIAS = {alias: name for name, aliases in _ALIASES.items() for alias in aliases.split()}
_NON_EMBEDDING = re.compile(r"_?(non_?emb(edding)?s?|no_?emb(edding)?s?)_?")
_TRACKED = re.compile(r"(metrics|params|config|summary|summary_metrics|hparams)[./](?=.)")
"""Prefixes that experiment trackers put before a column's name."""
_OTHER_LOSSES = {"aux", "auxiliary", "balance", "balancing", "load", "router", "z", "mtp", "init", "initial", "min",
                 "max", "std", "stderr", "scale", "spike", "spikes", "count", "rank", "diff", "delta", "gap", "grad",
                 "weight", "coef", "type", "name", "function", "fn", "step", "steps", "time", "log", "ln", "log2",
                 "log10", "bit", "bits", "bpb", "bpc", "byte", "ppl"}  # fmt: skip
"""Words of a column's name by which its loss is not the one that a law predicts."""
PARAMS = ("total_params", "active_params", "base_params", "nonzero_params")
"""Quantities that are numbers of params."""
COUNTS = (*PARAMS, "tokens", "unique_tokens", "batch_tokens", "train_flops", "flops_per_token")
"""Quantities so large that columns of them may be in millions or billions."""
SHARES = ("activation_ratio", "shared_ratio", "weight_sparsity")
"""Quantities that are at most 1, whose columns may be in percent."""
_LONGEST_NAME = 200
"""Characters beyond which a column's name is no quantity's."""
_LOGARITHM = re.compile(
    r"(?P<base>log_?10|log_?2|ln)(?:[ _.]+(?P<bare>[^()]+)|\s*\((?P<inside>.+)\))|"
    r"(?P<name>.+?)\s*[(\[](?P<behind>log_?10|log_?2|ln)[)\]]",
    re.IGNORECASE,
)
"""Names of logarithms that say their base: log10_N, ln(tokens), params (log10)."""
_BASES = {"log10": 10.0, "log2": 2.0, "ln": math.e}
_FACTOR = re.compile(r"(.*\S)\s*\*\s*([0-9.eE+]+|[kKMBGT])")


@dataclass(frozen=True)
class Naming:
    """Which column holds which quantity."""

    columns: Mapping[str, str]
    """Column by quantity."""
    conventions: Mapping[str, str]
    """Conventions that the columns' own names state, by quantity."""
    factors: Mapping[str, float]
    """The factor of a quantity's cells, where its column's name or --map gives a unit."""
    bases: Mapping[str, float]
    """The base of a quantity's cells, where its column's name says that they are logarithms."""
    losses: tuple[str, ...]
    """Columns that may be the loss, where none is for sure."""

    @property
    def aliases(self) -> dict[str, str]:
        """Quantities whose column has another name, with that name."""
        return {name: column for name, column in self.columns.items() if name != column}


def name_columns(columns: Iterable[str], given: Mapping[str, str], file: str) -> Naming:
    """Find the quantity of each column: as `given` (quantity: column), by its own name, or by an alias.

    A given column may be followed by a factor, as in "N*1e6" or "N*M", and a name by a unit, as in "params (M)". The
    letter L is the loss only where no other column's name says that it is one.

    Raises `UsageError` for a given column that is not there, a quantity that is not known, and two columns that are
    one quantity.
    """
    columns = list(columns)
    found: dict[str, str] = {}
    conventions: dict[str, str] = {}
    factors: dict[str, float] = {}
    bases: dict[str, float] = {}
    for name, text in given.items():
        if name not in QUANTITIES:
            raise UsageError(f"{name!r} is no quantity that runs have; known are {', '.join(sorted(QUANTITIES))}")
        column, factor = _with_factor(text, columns)
        if column not in columns:
            raise UsageError(f"{file}: has no column {column!r} for {name}; its columns are {listed(columns)}")
        found[name] = column
        meaning = _meaning(column)
        factors[name] = meaning.factor if factor is None else factor
        if meaning.base and meaning.quantity == name:
            bases[name] = meaning.base
        if meaning.convention and name in CONVENTIONS and meaning.convention in CONVENTIONS[name]:
            conventions[name] = meaning.convention
    taken = set(found.values())
    rest = [column for column in columns if column not in taken]
    losses = _losses(rest)
    for column in rest:
        meaning = _meaning(column)
        quantity = meaning.quantity
        if column == "L" and any("loss" in other.lower() for other in rest):
            continue
        if losses == [column]:
            quantity = "loss"
        if not quantity or quantity in given:
            continue
        if quantity in found:
            raise UsageError(
                f"{file}: columns {found[quantity]!r} and {column!r} both mean {quantity}; choose with "
                f"{flag('map', f'{quantity}={column}')}"
            )
        found[quantity] = column
        factors[quantity] = meaning.factor
        if meaning.base:
            bases[quantity] = meaning.base
        if meaning.convention:
            conventions[quantity] = meaning.convention
    for quantity, column in _by_last_word(rest, found).items():
        found[quantity], meaning = column, _meaning(_last_word(column))
        factors[quantity] = meaning.factor
        if meaning.convention:
            conventions[quantity] = meaning.convention
    unclear = losses or [column for column in rest if column == "L" or "loss" in column.lower()]
    scaled = {name: factor for name, factor in factors.items() if factor != 1.0}
    return Naming(found, conventions, scaled, bases, () if "loss" in found else tuple(unclear))


def _by_last_word(columns: Iterable[str], found: Mapping[str, str]) -> dict[str, str]:
    """Columns by quantity of names that say one at their end, as model/n_params does and no other of them: objects in
    objects have such names. A loss has to say more than that it is one, as eval/val_loss does."""
    meant: dict[str, list[str]] = {}
    for column in columns:
        last = _last_word(column)
        if len(last) > 1 and last not in (column, "loss") and column not in found.values():
            meant.setdefault(_meaning(last).quantity, []).append(column)
    return {name: of[0] for name, of in meant.items() if name and name not in found and len(of) == 1}


def _last_word(column: str) -> str:
    """What follows the last dot or slash of a name."""
    return re.split(r"[./]", column)[-1]


@dataclass(frozen=True)
class _Meaning:
    """A column's name, read: quantity, convention, unit."""

    quantity: str = ""
    """The quantity; "" for none."""
    convention: str = ""
    """The convention that it states."""
    factor: float = 1.0
    """The unit that it states."""
    base: float = 0.0
    """The base of the logarithms that it says it holds; 0 for none."""


def _meaning(column: str) -> _Meaning:
    """Read the name of a column."""
    if column in QUANTITIES:
        return _Meaning(column)
    if column in _EXACT:
        return _Meaning(_EXACT[column])
    if len(column) > _LONGEST_NAME:
        return _Meaning()
    bare = _TRACKED.sub("", column, count=1) if _TRACKED.match(column) else column
    logarithm = _LOGARITHM.fullmatch(bare)
    if logarithm:
        of = _meaning(logarithm["bare"] or logarithm["inside"] or logarithm["name"])
        base = _BASES[(logarithm["base"] or logarithm["behind"]).lower().replace("_", "")]
        return replace(of, base=base) if of.quantity in COUNTS and not of.base and of.factor == 1.0 else _Meaning()
    readings = [(bare, 1.0), unit_of_header(bare)]
    if readings[1][1] in PERCENT.values():  # a sign, which a name is read without
        readings.reverse()
    for name, factor in dict.fromkeys(readings):
        if name in _EXACT:  # N (M)
            return _Meaning(_EXACT[name], factor=factor)
        word = _word(name)
        plain = _NON_EMBEDDING.sub("_", word).strip("_")
        convention = "non_embedding" if plain != word else ""
        for candidate in dict.fromkeys((word, plain)):
            quantity = candidate if candidate in QUANTITIES else _BY_ALIAS.get(candidate, "")
            is_unit = quantity in (SHARES if factor in PERCENT.values() else COUNTS)
            if quantity and (not convention or quantity in PARAMS[:2]) and (factor == 1.0 or is_unit):
                return _Meaning(quantity, convention, factor)
    return _Meaning()


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _losses(columns: Iterable[str]) -> list[str]:
    """Columns whose names hold "loss" and do not say that it is another than a law predicts; empty where one is known
    by its own name or an alias."""
    columns = [column for column in columns if len(column) <= _LONGEST_NAME]
    if any(_meaning(column).quantity == "loss" and column != "L" for column in columns):
        return []
    words = {column: _word(column).split("_") for column in columns}
    return [column for column, parts in words.items() if "loss" in parts and not _OTHER_LOSSES & set(parts)]


def _with_factor(text: str, columns: list[str]) -> tuple[str, float | None]:
    """The column and the factor of "N*1e6"; no factor where there is none."""
    match = None if text in columns else _FACTOR.fullmatch(text)
    if match is None:
        return text, None
    try:
        factor = UNITS.get(match[2].lower()) or float(match[2])
    except ValueError:
        return text, None
    if not 0 < factor < 1e30:
        raise UsageError(f"--map {text!r}: {match[2]} is no factor; write it like N*1e6")
    return match[1], factor


def flag(name: str, value: str) -> str:
    """A flag as it is typed, its value quoted where a shell would change it: --map 'loss=val loss'."""
    return f"--{name} {shlex.quote(value)}"


def listed(columns: Sequence[str]) -> str:
    """Names of columns for a sentence, the first of many."""
    return ", ".join(columns[:30]) + (f" and {len(columns) - 30} more" if len(columns) > 30 else "")
