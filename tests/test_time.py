"""Plans by the clock: time, throughput, layout and tokens agree, and the search finds what trying everything finds."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from moeplan import Budget, Plan, recommend
from moeplan.cli import cli
from moeplan.cost.devices import bundled, parse_gpus
from moeplan.cost.training.memory import training_memory
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout, read_layout
from moeplan.cost.training.throughput.step import step_time
from moeplan.errors import InfeasibleError, MoeplanError, UsageError
from moeplan.plan.budget_fields import parse_multiples, trainers
from moeplan.plan.choice import Choice, choose_design
from moeplan.plan.export import export
from moeplan.plan.law_selection import select_laws
from moeplan.plan.search import clock as clocks
from moeplan.plan.search.space import Space
from moeplan.plan.trainable import clock_of, trainer_of
from moeplan.report.plan_page import plan_html
from moeplan.report.sections import plan_sections
from moeplan.report.terminal import terminal_text
from moeplan.studies.inspection import inspect
from moeplan.studies.training_fit import TrainingRequest, training_fit
from tests.published import MODELS
from tests.small import VOCAB, laws, small_grid


def small(gpus: str, days: float, memory: str | None = "80GB", **conditions: Any) -> Budget:
    """A budget of time whose grid can be the small one."""
    return Budget(memory=memory, gpus=gpus, days=days, vocab_size=VOCAB, tied_embeddings=True, **conditions)


def space_of(budget: Budget, **axes: object) -> Space:
    """The small grid under a budget."""
    grid = small_grid(**axes)
    return Space(budget, laws(), base=grid, reference=grid)


def first_layout(plan: Plan) -> Layout:
    """The first layout of a plan."""
    names = ("tp", "pp", "ep", "etp", "cp", "dp", "micro_batch", "recompute", "virtual_stages")
    return Layout(**{name: getattr(plan.training.layouts[0], name) for name in names})


def assert_consistent(plan: Plan, folder: Any) -> None:
    """Everything that a plan says of time is one story, told again by an inspection of its file."""
    run, request, first = plan.training, plan.request, plan.training.layouts[0]
    gpus = parse_gpus(request.gpus or "")
    file = folder / "plan.json"
    file.write_text(plan.to_text(), encoding="utf-8")
    asked = TrainingRequest(gpus=gpus, layout=first_layout(plan))
    seen = inspect(file, training=asked).training
    assert seen is not None
    (again,) = seen.layouts
    speed = again.tokens_per_second_per_gpu
    assert again.fits
    assert again.bytes_per_gpu == pytest.approx(first.bytes_per_gpu, rel=1e-9)
    assert first.bytes_per_gpu <= (run.usable_bytes or 0)
    assert run.tokens_per_second_per_gpu == pytest.approx(speed, rel=1e-9)
    assert again.mfu == pytest.approx(run.mfu, rel=1e-9)
    assert again.mfu == pytest.approx(first.mfu, rel=1e-9)
    assert plan.counts.train_flops == pytest.approx(request.flops, rel=1e-9)
    assert run.days is not None
    assert run.gpu_hours == pytest.approx(run.days * 24 * gpus.count, rel=1e-9)
    assert run.batch_sequences == first.batch_sequences
    per_day = speed * gpus.count * 86400 * request.goodput
    assert plan.design.tokens == pytest.approx(per_day * run.days, rel=1e-6)
    model_flops = plan.counts.flops_per_token * speed
    assert run.mfu == pytest.approx(model_flops / gpus.device.bf16_flops, rel=1e-6)
    if "tokens" not in plan.binding:
        assert run.days == pytest.approx(request.days, rel=5e-3)
    if request.price_per_gpu_hour:
        assert run.money == pytest.approx(run.gpu_hours * request.price_per_gpu_hour, rel=1e-9)
    low, high = run.days.low, run.days.high
    assert low is not None
    assert high is not None
    assert low < run.days < high


DEVICES = ["H100", "H200", "GB200", "A100-80GB", "B200"]
FEW = 2
"""Requests of the default suite; 40 are asked by `-m slow`."""


def assert_told_alike(plan: Plan) -> None:
    """The whole report, the page and an export give the first layout, its speed and utilisation as the plan does."""
    first, run = plan.training.layouts[0], plan.training
    for words in (terminal_text(plan_sections(plan), 200), plan_html(plan)):
        text = " ".join(words.split())
        assert f"{run.tokens_per_second_per_gpu:,.0f}" in text
        assert f"{100 * run.mfu:.3g} %" in text
        assert "of the dense bf16 peak" in text
    job = export(plan, "megatron")
    for flag, degree in (
        ("tensor-model-parallel-size", first.tp),
        ("pipeline-model-parallel-size", first.pp),
        ("expert-model-parallel-size", first.ep),
        ("micro-batch-size", first.micro_batch),
        ("global-batch-size", run.batch_sequences),
    ):
        assert re.search(rf"--{flag} {degree}\b", job), flag


@pytest.mark.parametrize("number", [*range(FEW), *(pytest.param(n, marks=pytest.mark.slow) for n in range(FEW, 40))])
def test_time_layout_and_tokens_agree(number: int, tmp_path: Any) -> None:
    """For random requests tokens/s of an inspection x time x goodput are the plan's tokens, and all figures agree."""
    random = np.random.default_rng(number)
    device = DEVICES[number % len(DEVICES)]
    count = int(random.choice([8, 24, 64, 100, 250, 256, 1000, 1021, 4000]))
    precision = "fp8" if device != "A100-80GB" and random.random() < 0.5 else "bf16"
    budget = Budget(
        memory=["8x80GB", "80GB", "640GB", None][number % 4],
        gpus=f"{count}x{device}",
        days=float(np.round(random.uniform(2, 60), 2)),
        goodput=float(np.round(random.uniform(0.7, 1.0), 2)),
        train_precision=precision,
        price_per_gpu_hour=2.5,
    )
    try:
        plan = recommend(budget, alternatives=1)
    except InfeasibleError:
        return  # few GPUs for much memory: nothing to compare
    assert_consistent(plan, tmp_path)
    assert_told_alike(plan)


def everything(budget: Budget, space: Space) -> list[float]:
    """Tokens/s of every design of a space, by trying every layout of it one by one."""
    trainer, found = trainer_of(budget), []
    for index in range(len(space)):
        one, best = space.architecture(index), 0.0
        for degrees, ep in itertools.product(trainer.degrees, trainer.experts):
            for spread in trainer.spreads(degrees, ep):
                layout = spread.layout
                if layout.problems(one, budget.seq_len):
                    continue
                settings = TrainingSettings(num_micro_batches=spread.num_micro_batches, optimizer=trainer.optimizer)
                if training_memory(one, layout, settings).total > trainer.usable_bytes:
                    continue
                time = step_time(
                    one, layout, trainer.gpus.device, spread.batch, budget.seq_len, precision=trainer.precision
                )
                best = max(best, spread.batch * budget.seq_len / float(time.total))
        found.append(best)
    return found


@pytest.mark.parametrize(
    "gpus, conditions, d_model",
    [
        ("8xH100", {}, (1024, 2048)),
        pytest.param("8xH100", {"train_precision": "fp8"}, (1024, 2048), marks=pytest.mark.slow),
        pytest.param("11xH100", {}, (1024, 2048), marks=pytest.mark.slow),  # a prime: some may stand idle
        pytest.param("16xH100", {"layout": "pp=2"}, (1024, 2048), marks=pytest.mark.slow),
        pytest.param("8xH100", {"attention": "mla"}, (1024, 2048), marks=pytest.mark.slow),
        pytest.param("8xH100", {"attention": "gdn-3:1"}, (1024, 2048), marks=pytest.mark.slow),
    ],
)
def test_the_joint_search_is_enumeration(gpus: str, conditions: dict[str, Any], d_model: tuple[int, ...]) -> None:
    """On a small grid the largest score is that of every design under every layout, and ties go to one of its ties."""
    budget = small(gpus, 10.0, None, batch=128, **conditions)
    axes = {"attention": budget.attention} if conditions.get("attention") else {}
    space = space_of(budget, d_model=d_model, num_experts=(16, 64), granularity=(2.0, 8.0), aspect_ratio=(64,), **axes)
    speeds = np.array(everything(budget, space))
    choice = choose_design(space, laws())
    usual = clock_of(space).typical
    assert usual is not None
    s, seconds = usual.weight, budget.seconds
    assert 0 < s < 1
    trains = speeds > 0
    machines = parse_gpus(gpus)
    peak = machines.count * machines.device.bf16_flops
    own = np.where(trains, speeds, 1.0) * space.flops_per_token
    judged = own**s * (peak * usual.utilisation(space.active_params)) ** (1 - s) * seconds
    scores = space.score(lambda part: (own[part] * seconds, judged[part]))
    value = np.where(trains & scores.feasible, scores.unlimited_mean(laws()), -np.inf)
    assert choice.best_ln_value == pytest.approx(float(value.max()), abs=1e-9)
    assert value[choice.index] >= value.max() + math.log1p(-0.005)
    assert choice.tokens == int(own[choice.index] * seconds / space.flops_per_token[choice.index])


def test_equal_compute_with_gpus_is_enumeration() -> None:
    """With --optimise flops the choice is the best at its compute of all designs that some layout trains, and those it
    chooses within days train for just these."""
    axes = {"d_model": (1024, 2048, 3072), "num_experts": (16, 64), "granularity": (2.0, 8.0), "aspect_ratio": (64,)}
    layout = "pp=1,tp=1,recompute=none"
    days = small("8xH100", 10.0, None, batch=128, layout=layout, optimise="flops")
    given = Budget("2e21", None, gpus="8xH100", batch=128, layout=layout, vocab_size=VOCAB, tied_embeddings=True)
    speeds = np.array(everything(days, space_of(days, **axes)))
    trains = speeds > 0
    assert 0 < np.count_nonzero(trains) < len(trains)
    for budget in (days, given):
        space = space_of(budget, **axes)
        choice = choose_design(space, laws())
        value = np.where(trains, space.score(choice.flops).mean(laws()), -np.inf)
        assert choice.best_ln_value == pytest.approx(float(value.max()), abs=1e-9)
        assert value[choice.index] >= value.max() + math.log1p(-0.005)
        own = speeds[choice.index] * space.flops_per_token[choice.index] * budget.seconds
        assert choice.flops == (pytest.approx(own, rel=1e-6) if budget is days else 2e21)


def test_the_count_of_designs_is_of_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Designs that meet every condition are counted alike however many of them were asked for their layouts."""
    budget = small("8xH100", 20.0, None, layout="ep=1,pp=1")
    space = space_of(budget)
    trainer = trainer_of(budget)
    fits = (space.memory <= budget.usable_bytes) & (
        trainer.least_state_bytes * space.total_params <= trainer.usable_bytes
    )
    assert choose_design(space, laws()).num_feasible == np.count_nonzero(fits)
    for name, value in (("FEW", 10), ("SAMPLE", 24), ("FIRST", 32)):
        monkeypatch.setattr(clocks, name, value)
    choice = choose_design(space_of(budget), laws())
    assert choice.num_feasible == np.count_nonzero(fits)
    assert np.count_nonzero(choice.scores.allowed & fits) < np.count_nonzero(fits)


def test_many_designs_are_chosen_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a sample says which layouts matter and how near designs come to their bounds, the answer is the same."""
    budget = small("64xH100", 20.0)
    exact = choose_design(space_of(budget), laws())
    monkeypatch.setattr(clocks, "FEW", 10)
    monkeypatch.setattr(clocks, "SAMPLE", 24)
    sampled = choose_design(space_of(budget), laws())
    assert sampled.best_ln_value == pytest.approx(exact.best_ln_value, abs=1e-9)
    assert sampled.index == exact.index


def test_more_time_is_worth_what_all_designs_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """What 10 % more time is worth is the same whether all designs are judged anew, or those alone that may gain it."""
    budget = small("64xH100", 20.0)
    choice = choose_design(space_of(budget), laws())
    assert choice.clock is not None
    some = choice.with_more(compute=1.1)
    assert len(some.space) < len(choice.space) / 2
    monkeypatch.setattr(clocks, "_FAST", math.inf)
    every = choose_design(space_of(budget), laws()).with_more(compute=1.1)
    assert len(every.space) == len(choice.space)
    assert some.architecture == every.architecture
    for judged in (laws(), *((law,) for law in laws())):
        assert some.scores.mean(judged).max() == every.scores.mean(judged).max() >= choice.scores.mean(judged).max()


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_no_law_grows_fast_with_time(precision: str) -> None:
    """What a law makes of any design grows with time by a power of 1.6 at most, at the same speed."""
    clock = clock_of(space_of(small("64xH100", 20.0, None, train_precision=precision)))
    judged = [
        clock.space.score(clock._spending(clock.speeds.tokens_per_second, time), more=time).ln_compute
        for time in (1.0, 1.1)
    ]
    assert ((judged[1] - judged[0]).max(axis=1) <= 1.6 * math.log(1.1)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "gpus, days, memory, precision",
    [
        ("256xH100", 30.0, "8x80GB", "bf16"),
        ("256xH100", 30.0, None, "bf16"),
        ("64xH200", 30.0, "8x141GB", "fp8"),
        ("4001xH100", 20.0, None, "bf16"),
        ("64xGB200", 30.0, "8x80GB", "mxfp8"),
        ("96xA100-80GB", 14.0, "80GB", "bf16"),
        ("16xH100", 20.0, None, "fp8"),
        ("1000xB200", 60.0, "16x80GB", "fp8"),
    ],
)
def test_samples_find_what_asking_all_finds(
    monkeypatch: pytest.MonkeyPatch, gpus: str, days: float, memory: str | None, precision: str
) -> None:
    """On 25,000 to 130,000 designs, V and the choice are those of proven bounds and every layout; each law's best near.

    Without samples every design that its proven bound leaves is asked under every layout.
    """
    budget = Budget(gpus=gpus, days=days, memory=memory, train_precision=precision)
    declared, everyone = budget.reference_grid(), select_laws(None).objective
    grid = dataclasses.replace(
        declared,
        d_model=declared.d_model[::2],
        aspect_ratio=declared.aspect_ratio[2::2],
        num_experts=declared.num_experts[1::2],
        granularity=declared.granularity[::2],
    )

    def choose() -> Choice:
        return choose_design(Space(budget, everyone, base=grid, reference=grid), everyone)

    sampled = choose()
    monkeypatch.setattr(clocks, "FEW", 10**9)
    proven = choose()
    assert sampled.best_ln_value == pytest.approx(proven.best_ln_value, abs=1e-9)
    assert sampled.index == proven.index
    for law in everyone:
        best = [float(choice.scores.mean([law]).max()) for choice in (sampled, proven)]
        assert best[0] == pytest.approx(best[1], abs=0.04)


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_more_never_lowers_the_best(precision: str) -> None:
    """A longer time, more GPUs of a kind, more memory of them or of the served model never lower the largest score."""

    def best(gpus: str = "24xH100", days: float = 9.0, memory: str | None = "40GB") -> float:
        budget = small(gpus, days, memory, train_precision=precision)
        return choose_design(space_of(budget), laws()).best_ln_value

    base = best()
    assert best(days=9.5) >= base
    assert best(days=40) >= base
    assert best(gpus="25xH100") >= base
    assert best(gpus="37xH100") >= base
    assert best(memory="60GB") >= base
    assert best(memory=None) >= base


@pytest.mark.parametrize("weights", [{"zhao2025": 0.5}, {"tian2025": 4, "ludziejewski2025": 0.1}])
def test_more_days_never_lower_the_best_with_weights(weights: dict[str, float]) -> None:
    """V by laws of set weights rises with days, GPUs and memory as V by equal weights does."""
    judges = select_laws(weights).objective

    def best(gpus: str = "24xH100", days: float = 9.0, memory: str = "40GB") -> float:
        budget, grid = small(gpus, days, memory), small_grid()
        return choose_design(Space(budget, judges, base=grid, reference=grid), judges).best_ln_value

    by_days = [best(days=days) for days in (4, 9, 9.5, 14, 40)]
    assert by_days == sorted(by_days)
    assert best(gpus="37xH100") >= best()
    assert best(memory="60GB") >= best()


def test_what_no_layout_trains_is_never_recommended() -> None:
    """64 H200 for 30 days and 8x141GB get a model that they train, with its layout; hopeless GPUs get a sentence."""
    plan = recommend(Budget(memory="8x141GB", gpus="64xH200", days=30), alternatives=0)
    assert plan.training.layouts
    assert plan.training.layouts[0].bytes_per_gpu <= 141e9 * 0.9
    assert plan.training.days == pytest.approx(30, rel=1e-6)
    done = CliRunner().invoke(
        cli,
        [
            "recommend",
            "--gpus",
            "8xH100",
            "--flops",
            "1e23",
            "--memory",
            "8x80GB",
            "--range",
            "total_params=200B..300B",
        ],
        prog_name="moeplan",
    )
    assert done.exit_code == 1
    assert "cannot" not in done.output
    assert "would do for the smallest" in done.output


def test_compute_with_gpus_gives_days() -> None:
    """--flops with --gpus keeps the compute, and takes the days that the first layout takes, pauses included."""
    plan = recommend(Budget("1e22", "80GB", gpus="100xH100"), alternatives=0)
    run = plan.training
    assert plan.request.optimise == "flops"
    assert run.days is not None
    assert run.tokens_per_second_per_gpu is not None
    assert run.days == pytest.approx(plan.design.tokens / (100 * run.tokens_per_second_per_gpu * 0.9 * 86400), rel=1e-9)
    assert plan.request.flops == 1e22


@pytest.mark.parametrize(
    "layout, words",
    [
        ("tp=3", "3 equal pieces, which do not divide seq_len 4096"),
        ("cp=3", "6 equal pieces"),
        ("tp=16,pp=8", "at least 128 GPUs, and there are 64"),
        ("ep=128", "at least 128 GPUs, and there are 64"),
    ],
)
def test_layouts_of_no_design_are_refused_at_once(layout: str, words: str) -> None:
    """Degrees that cannot cut a sequence evenly, or take more GPUs than there are, need no search to be refused."""
    with pytest.raises(InfeasibleError, match=words):
        Budget(gpus="64xH100", days=5, layout=layout)


def test_words_say_what_there_is() -> None:
    """A batch is rounded to GPUs only where GPUs are given, and days must be finite."""
    assert (
        "rounded to the GPUs"
        not in CliRunner()
        .invoke(cli, ["recommend", "--flops", "1e20", "--memory", "80GB", "--alternatives", "0", "--full"])
        .output
    )
    text = (
        CliRunner()
        .invoke(cli, ["recommend", "--flops", "1e20", "--gpus", "64xH100", "--alternatives", "0", "--full"])
        .output
    )
    assert "rounded to the GPUs" in text
    with pytest.raises(UsageError, match="days inf must be a number, and finite"):
        Budget(gpus="8xH100", days=math.inf)


@pytest.mark.parametrize(("days", "says"), [(1e-9, "too small for any"), (1e9, "beyond what any law"), (1e300, "days")])
def test_days_that_cannot_be_are_told_in_days(days: float, says: str) -> None:
    """Too short and too long times are refused with days that would do, which do."""
    with pytest.raises(UsageError, match=says) as refused:
        Budget(memory="80GB", gpus="64xH100", days=days)
    named = re.search(r"(?:try|up to|example) (?:up to )?([\d.e+-]+)", str(refused.value))
    assert named is not None
    Budget(memory="80GB", gpus="64xH100", days=float(named[1]))


def test_days_at_equal_compute() -> None:
    """--optimise flops with days chooses at equal compute the design that takes just these days."""
    plan = recommend(Budget(memory="80GB", gpus="64xH100", days=10, optimise="flops"), alternatives=0)
    assert plan.training.days == pytest.approx(10, rel=1e-3)
    assert plan.request.optimise == "flops"


def test_sizes_are_multiples() -> None:
    """--multiple-of holds for the plan and its alternatives."""
    budget = Budget("1e22", "80GB", multiple_of={"num_experts": 64, "d_expert": 256})
    plan = recommend(budget, alternatives=2)
    for design in (plan.design, *plan.alternatives):
        assert design.num_experts % 64 == 0
        assert design.d_expert % 256 == 0


def test_a_fixed_layout_is_kept() -> None:
    """What --layout names is so in every layout of the plan."""
    plan = recommend(Budget(memory="80GB", gpus="64xH100", days=5, layout="tp=2,pp=4,recompute=full"), alternatives=0)
    assert plan.training.layouts
    for layout in plan.training.layouts:
        assert (layout.tp, layout.pp, layout.recompute) == (2, 4, "full")


@pytest.mark.parametrize(
    "conditions, answer",
    [
        ({"goodput": 0.0}, "goodput 0.0 must be above 0"),
        ({"optimise": "speed"}, "optimise 'speed' must be"),
        ({"train_precision": "mxfp8"}, "H100 SXM has no mxfp8 for training; use bf16 or fp8"),
        ({"software": "partial graph"}, "unknown software 'partial graph'; did you mean partial graphs"),
        ({"layout": "tp=0"}, "tp 0 must be a whole number"),
        ({"layout": "zp=2"}, "must name each of tp"),
        ({"batch": -1}, "batch -1 must be a whole number"),
        ({"multiple_of": {"granularity": 2}}, "multiple_of 'granularity' is no whole size"),
        ({"multiple_of": {"num_expert": 2}}, "did you mean num_experts"),
        ({"multiple_of": {"num_experts": 0}}, "multiple_of num_experts=0 must be"),
    ],
)
def test_what_cannot_be_is_refused(conditions: dict[str, Any], answer: str) -> None:
    """A condition that cannot be is refused in one sentence with the value and what would work."""
    with pytest.raises(UsageError, match=answer):
        small("8xH100", 3.0, **conditions)


def test_time_needs_days() -> None:
    """Equal time or money needs days on GPUs; a layout needs GPUs."""
    for optimise in ("time", "money"):
        with pytest.raises(UsageError, match=f"optimise {optimise} needs gpus and days"):
            Budget("1e22", "80GB", optimise=optimise)
    with pytest.raises(UsageError, match="layout tp=2 needs gpus"):
        Budget("1e22", "80GB", layout="tp=2")


RUN = "qwen3-30b-a3b on 64xH100, tp=1,pp=2,ep=8,batch=1024: {speed} tokens/s"


def test_a_measured_run_calibrates_its_site(tmp_path: Path) -> None:
    """A run at 80 % of the predicted speed moves the site some of the way there and shrinks its interval, more of them
    more; the design's own part stays, and a file of runs says the same."""
    asked = TrainingRequest(gpus=parse_gpus("64xH100"), batch=1024)
    layout = dataclasses.replace(asked, layout=read_layout("tp=1,pp=2,ep=8", 64))
    model = MODELS["Qwen3-30B-A3B"]
    (free,) = training_fit(model, layout, seq_len=4096).layouts
    text = RUN.format(speed=round(0.8 * 64 * free.tokens_per_second_per_gpu))
    once = training_fit(model, dataclasses.replace(layout, measured=(text,)), seq_len=4096)
    thrice = training_fit(model, dataclasses.replace(layout, measured=(text,) * 3), seq_len=4096)
    speeds = [free.tokens_per_second_per_gpu] + [x.layouts[0].tokens_per_second_per_gpu for x in (once, thrice)]
    assert 0.8 * speeds[0] < speeds[2] < speeds[1] < speeds[0]
    assert thrice.layouts[0].site_ln_sd < once.layouts[0].site_ln_sd < free.site_ln_sd
    assert once.layouts[0].design_ln_sd == free.design_ln_sd
    assert re.match(r"1 measured run \(.* tokens/s a GPU\): this site is 0\.", once.site_note)
    file = tmp_path / "runs.yaml"
    file.write_text(f'- "{text}"\n' * 3, encoding="utf-8")
    assert training_fit(model, dataclasses.replace(layout, measured=(str(file),)), seq_len=4096) == thrice


def test_measured_runs_change_a_plan_by_the_clock() -> None:
    """A plan with a measured run says so, and has the speed that its own inspection has there."""
    fix = {"d_model": 3072.0, "num_active_experts": 8.0}
    run = RUN.format(speed=500_000)
    plan = recommend(Budget(memory="8x80GB", gpus="64xH100", days=10, fix=fix, measured=(run,)), alternatives=0)
    assert "1 measured run" in plan.training.site_note
    assert plan.request.measured == (run,)
    assert plan.training.days == pytest.approx(10, rel=1e-6)
    again = training_fit(
        plan.architecture,
        TrainingRequest(gpus=parse_gpus("64xH100")),
        seq_len=4096,
        tokens=plan.design.tokens,
        plan=plan,
    )
    assert again.layouts[0].mfu == pytest.approx(plan.training.mfu, rel=1e-9)


@pytest.mark.parametrize(
    "run, words",
    [
        ("qwen3-30b-a3b: 5 tokens/s", "must be MODEL on GPUS, LAYOUT: SPEED tokens/s"),
        ("qwen3-30b-a3b on 64xH200, ep=8: 600000 tokens/s", "is of H200, and the GPUs are H100 SXM"),
        ("qwen3-30b-a3b on 64xH100, ep=8: 9000 tokens/s in all", "beyond what sites differ by"),
        ("qwen3-30b-a3b on 64xH100, ep=8: 500k tokens/s/GPU", "beyond what sites differ by"),
        ("qwen3-30b-a3b on 8xH100, ep=8: 666000 tokens/s", "times the bf16 peak of H100 SXM"),
        ("qwen3-30b-a3b on 64xH100, ep=7: 600000 tokens/s", "ep"),
        ("no-such-model on 64xH100, ep=8: 600000 tokens/s", "no-such-model"),
        ("missing.yaml", "missing.yaml"),
    ],
)
def test_measured_runs_that_cannot_be(run: str, words: str) -> None:
    """One sentence says what is wrong with a measured run."""
    request = TrainingRequest(gpus=parse_gpus("64xH100"), measured=(run,))
    with pytest.raises(MoeplanError, match=words):
        training_fit(MODELS["Qwen3-30B-A3B"], request, seq_len=4096)


def test_trainers_multiples_are_sourced_and_hold() -> None:
    """`--multiple-of megatron` holds what it names, beside what is given besides; each trainer has a source."""
    multiples = parse_multiples(["megatron", "num_experts=12"])
    assert multiples == {"num_experts": 24, "num_heads": 8, "d_model": 128, "d_expert": 128}
    plan = recommend(Budget("1e21", "80GB", multiple_of=multiples, fix={"d_model": 2048.0}), alternatives=0)
    for name, multiple in multiples.items():
        assert getattr(plan.design, name) % multiple == 0, name
    for trainer in trainers():
        assert len(bundled("trainers.yaml").section(trainer).text("source")) > 40


@pytest.mark.parametrize(
    "words, answer",
    [
        (["--flops", "1e22", "--memory", "80GB", "--multiple-of", "megatrom"], "or name a trainer: megatron"),
        (["--flops", "1e22", "--memory", "80GB", "--train-precision", "mxfp8"], "needs gpus that have it"),
        (["--flops", "1e22", "--memory", "80GB", "--train-precision", "int4"], "int4"),
        (["--flops", "1e22", "--memory", "80GB", "--layout", "tp=2"], "needs gpus"),
        (["--flops", "1e22", "--memory", "80GB", "--software", "eagre"], "did you mean eager"),
        (["--gpus", "64xH100", "--memory", "8x80GB"], "need a time: add --days 30"),
        (["--days", "30", "--memory", "8x80GB"], "days need gpus"),
        (["--gpus", "64xH100", "--days", "0", "--memory", "8x80GB"], "--days 0 must be above 0"),
        (["--gpus", "64xA100-80GB", "--days", "3", "--memory", "80GB", "--train-precision", "fp8"], "use bf16"),
        (["--flops", "1e22", "--memory", "80GB", "--concurrency", "0"], "concurrency 0 must be"),
    ],
)
def test_words_of_time_that_cannot_be(words: list[str], answer: str) -> None:
    """Each ends with code 2 and one sentence that says what would work."""
    done = CliRunner().invoke(cli, ["recommend", *words])
    assert done.exit_code == 2
    assert answer in " ".join(done.output.split())


def test_precision_without_gpus_counts_on_the_machine_that_is_named() -> None:
    """fp8 halves no one's hours but shortens them; the plan is the same."""
    plans = [recommend(Budget("1e21", "80GB", train_precision=x), alternatives=0) for x in ("bf16", "fp8")]
    assert plans[0].design == plans[1].design
    assert 0.5 * plans[0].training.gpu_hours < plans[1].training.gpu_hours < plans[0].training.gpu_hours
