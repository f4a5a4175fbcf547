"""An existing model wherever it is described: a `config.json` or its folder, a plan file, or a bundled model's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moeplan.architecture.hf.config import language_model, load_json, read_config
from moeplan.architecture.hf.quantization import stored_weights
from moeplan.architecture.hf.types import Gap
from moeplan.architecture.published import Publication, PublishedModel, find_model, trained_settings_of
from moeplan.architecture.shape import Architecture
from moeplan.architecture.trained import TrainedSettings, trained_settings
from moeplan.cost.inference_memory import WeightDtype
from moeplan.errors import UsageError
from moeplan.files import check_read
from moeplan.plan.budget import Budget
from moeplan.plan.document import Plan


@dataclass(frozen=True)
class ExistingModel:
    """A model, wherever it is described."""

    name: str
    """The file, or the model's name."""
    kind: str
    """config, plan or published."""
    model_type: str
    """The model_type of its configuration; "" if none."""
    architecture: Architecture
    """Its integer shape."""
    gaps: tuple[Gap, ...] = ()
    """Parts of it that the shape does not express."""
    assumptions: tuple[str, ...] = ()
    """Points that the file leaves open, and how they were read."""
    publication: Publication | None = None
    """Its makers' figures, for a bundled model."""
    tokens: float | None = None
    """Its training tokens; None if not known."""
    seq_len: int = Budget.seq_len
    """Sequence length that its FLOPs are counted at [tokens]."""
    weight_dtype: WeightDtype | None = None
    """How its file says that weights are stored; None if it says nothing that can be counted."""
    plan: Plan | None = None
    """The whole plan, where the file is one."""


def read_model(source: str | Path) -> ExistingModel:
    """Read a file, a folder or a name."""
    if not check_read(source).exists():
        if isinstance(source, Path) or source.endswith(".json"):
            raise UsageError(f"{source}: there is no such file")
        return _published(find_model(source))
    data = load_json(source)
    if isinstance(data, dict) and str(data.get("schema", "")).startswith("moeplan."):
        try:
            plan = Plan.from_json(data)
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from None
        return ExistingModel(
            str(source), "plan", "", plan.architecture, tokens=float(plan.design.tokens), seq_len=plan.request.seq_len,
            plan=plan,
        )  # fmt: skip
    config = read_config(data, str(source))
    dtype, said = stored_weights(data)
    assumptions = (*config.assumptions, *said)
    return ExistingModel(
        str(source), "config", config.model_type, config.architecture, config.gaps, assumptions, weight_dtype=dtype
    )


def _published(model: PublishedModel) -> ExistingModel:
    return ExistingModel(
        model.name, "published", model.model_type, model.architecture, model.not_counted, (), model.publication,
        model.training_tokens,
    )  # fmt: skip


def settings_of_trained(source: str | Path) -> TrainedSettings:
    """What the weights of a model go with; raises `UsageError` where nobody says it."""
    if check_read(source).exists():
        data = load_json(source)
        if isinstance(data, dict) and not str(data.get("schema", "")).startswith("moeplan."):
            try:
                return trained_settings(language_model(data))
            except UsageError as error:
                raise UsageError(f"{source}: {error}") from None
    else:
        model = find_model(str(source))
        if (known := trained_settings_of(model)) is not None:
            return known
        source = model.name
    raise UsageError(f"{source}: its rotary positions and norms are not known; give the model's own config.json")
