"""moeplan: from a compute budget and a memory limit to an exact Mixture-of-Experts language model.

>>> from moeplan import Budget, recommend
>>> plan = recommend(Budget("1e22", "80GB"))
>>> plan.architecture, plan.leverage.pooled

Names are loaded when first used, so that importing moeplan costs nothing.
"""

__version__ = "0.1.0"

_HOMES = {
    "Architecture": "architecture.shape",
    "Budget": "plan.budget",
    "Demand": "cost.serving.demand",
    "FittedLaw": "fitting",
    "InferenceSettings": "cost.inference_memory",
    "InfeasibleError": "errors",
    "Law": "laws",
    "LawError": "errors",
    "MoeplanError": "errors",
    "Plan": "plan.document",
    "UsageError": "errors",
    "backtest": "studies.backtest.run",
    "compare": "studies.comparison",
    "export": "plan.export",
    "fit": "fitting",
    "frontier": "studies.frontier",
    "inspect": "studies.inspection",
    "law_names": "laws",
    "law_text": "fitting",
    "load_law": "laws",
    "plan_schema": "plan.document",
    "read_plan": "plan.document",
    "recommend": "plan.planner",
    "recommend_for": "plan.inverse",
    "verify": "verification.verify",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'moeplan' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"moeplan.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
