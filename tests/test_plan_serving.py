"""What a plan says of serving: users that fit its own memory limit, on one number of devices, per user and per GPU."""

from __future__ import annotations

import dataclasses

import pytest

from moeplan.cost.inference_memory import InferenceSettings, total_inference_bytes
from moeplan.plan.budget import Budget
from moeplan.plan.document import Plan
from moeplan.plan.planner import recommend
from moeplan.report.sections import plan_sections
from moeplan.report.terminal import terminal_text


@pytest.fixture(scope="module", params=["80GB", "8x24GB", "640GB"])
def plan(request: pytest.FixtureRequest) -> Plan:
    """A plan for one device, for several, and for more memory than one device has."""
    return recommend(Budget("1e21", request.param, serving=InferenceSettings(context=16384)), alternatives=0)


def test_what_fits_is_the_memory_limit(plan: Plan) -> None:
    """A decode step fits if weights and caches are within what the headroom leaves of the plan's own limit."""
    for point in plan.serving.points:
        settings = InferenceSettings(context=point.context, concurrency=point.batch)
        needed = total_inference_bytes(plan.architecture, settings, plan.memory.num_devices)
        assert plan.memory.usable_bytes is not None
        assert point.fits == (needed <= plan.memory.usable_bytes)


def test_sequences_of_the_stated_context(plan: Plan) -> None:
    """As many sequences of --context fit as are named, and not one more; the plan was made for at least one."""
    found = plan.serving.concurrency
    assert found is not None
    assert (found.context, found.most_sequences >= 1) == (16384, True)
    for more in (0, 1):
        settings = InferenceSettings(context=16384, concurrency=found.most_sequences + more)
        needed = total_inference_bytes(plan.architecture, settings, plan.memory.num_devices)
        assert plan.memory.usable_bytes is not None
        assert (needed <= plan.memory.usable_bytes) == (not more)


def test_speeds_agree(plan: Plan) -> None:
    """Per user times sequences is per GPU times GPUs in every row, on as many GPUs; no speed passes its bound."""
    use = plan.serving
    assert use.num_devices == 8 if plan.request.memory != "80GB" else use.num_devices == 1
    for point in use.points:
        together = point.expected_tokens_per_second_per_gpu * use.num_devices
        assert point.expected_tokens_per_second_per_user * point.batch == pytest.approx(together)
        assert point.expected_tokens_per_second_per_gpu < point.tokens_per_second_per_gpu
    found = use.concurrency
    assert found is not None
    assert found.tokens_per_second_per_user is not None
    assert found.tokens_per_second_per_gpu is not None
    together = found.tokens_per_second_per_gpu * use.num_devices
    assert found.tokens_per_second_per_user * found.most_sequences == pytest.approx(together)


def test_speeds_are_named(plan: Plan) -> None:
    """The first words of serving say how many sequences fit and how fast; tokens a second are per user or per GPU."""
    (serving,) = (section for section in plan_sections(plan) if section.title == "Serving")
    text = " ".join(terminal_text([serving], 200).split())
    assert text.startswith(f"Serving {plan.request.memory} holds")
    assert "per user" in text
    assert "per GPU" in text
    assert text.count("tok/s") == text.count("tok/s per user") + text.count("tok/s per GPU")
    assert "too large" not in text
    assert ("does not fit" in text) == (not all(point.fits for point in plan.serving.points))


def test_small_models_are_said_to_be_extrapolated(plan: Plan) -> None:
    """The smallest model that serving was published of has 4.19B active params; a smaller one says so."""
    (serving,) = (section for section in plan_sections(plan) if section.title == "Serving")
    said = "The figures are of 4.19B to 70.6B active params: extrapolated here." in " ".join(
        terminal_text([serving], 200).split()
    )
    assert said == (plan.design.active_params < 4.19e9)


def test_without_a_limit_the_fewest_gpus_serve() -> None:
    """A plan whose training alone must fit is served on the fewest GPUs that hold one sequence, headroom left free."""
    plan = recommend(Budget("1e20", gpus="8xH100", memory_for=("training",)), alternatives=0)
    found = plan.serving.concurrency
    assert found is not None
    assert (plan.serving.device, found.most_sequences >= 1) == ("H100 SXM", True)
    half = dataclasses.replace(InferenceSettings(), concurrency=1)
    if plan.serving.num_devices > 1:
        assert total_inference_bytes(plan.architecture, half, plan.serving.num_devices // 2) > 0.9 * 80e9
