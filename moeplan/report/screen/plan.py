"""The first screen of `moeplan recommend`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moeplan.laws.hyperparameters import HyperParameters
from moeplan.plan.document import NearEqual, Plan
from moeplan.plan.notes import MANY_TOKENS, MANY_TOKENS_PER_PARAM
from moeplan.plan.search.variables import Design
from moeplan.plan.training_run import LayoutOption
from moeplan.report.blocks import Section, Table
from moeplan.report.goal import budget_words
from moeplan.report.mixers import mixed
from moeplan.report.opinions import EXPERTS, SIZE
from moeplan.report.screen.commands import asked_again, next_section
from moeplan.report.screen.leverage import leverage_section
from moeplan.report.screen.warnings import open_laws, warning_sections
from moeplan.report.sections import seen
from moeplan.report.speeds import speeds_text
from moeplan.report.text import NONE, Number, Text, joined, judges, listed
from moeplan.report.view import View

CHOICES = "Near-equal choices (--choose takes one) and the quality each keeps"
LITTLE = 0.25
"""What a memory limit leaves of a budget, below which there is a warning."""
APART = 3.0
"""How many times the laws' learning rates may differ without one."""
_LABELS = {"best": "best: usual shape", "lean": "lean: fewer active", "rich": "rich: more active", "robust": "robust"}


def plan_screen(plan: Plan, changed: Sequence[Section] = ()) -> list[Section]:
    """The plan on one screen; `changed`, in place of near-equal choices, is what differs from the plan it repeats."""
    p = seen(plan)
    title = p("{size} mixture of experts, trained on {design.tokens} tokens", size=p.design(SIZE))
    choices = Table(*_choices(p), right=(2, 3, 4, 5), strong=(_own_row(plan),))
    return [
        Section(title, (Table(_rows(p)),)),
        leverage_section(p.leverage.pooled),
        *([] if changed else [Section(CHOICES, (choices,))]),
        *_warnings(p),
        *changed,
        *next_section(
            asked_again(plan.provenance.command, "--full"),
            ("--section laws", "--html plan.html", "--output plan.json", "moeplan help words"),
        ),
    ]


def _rows(p: View[Plan]) -> tuple[tuple[str, str], ...]:
    shape = p.architecture
    first = "first {num_dense_layers} dense; " if shape.num_dense_layers else ""
    shared = " + {num_shared_experts:d} shared" if shape.num_shared_experts else ""
    heads = "MLA" if shape.attention == "mla" else "{num_kv_heads} KV"
    inside = " inside {d_latent}" if shape.d_latent else ""
    blocks = shape(f"{{num_layers}} layer(s) x {{d_model}}; {first}{{num_heads}} head(s) ({heads})")
    experts = f"; {{num_active_experts:d}} of {{num_experts:d}} expert(s) of {{d_expert}}{inside}{shared}"
    built = joined((blocks, mixed(shape), shape(experts)))
    rows = [("For", _asked(p)), ("Shape", built), *(("Train" if not at else "", x) for at, x in enumerate(_train(p)))]
    rows += [("Serve", _serve(p)), ("Rate", _rate(p)), ("Quality (V)", _quality(p))]
    return tuple(rows)


def _asked(p: View[Plan]) -> Text:
    """Budget, limits and the laws that chose."""
    asked = p.request
    found = ", the least for the target" if p.goal and p.goal.finds != "memory" else ""
    memory = " and {request.memory}" if asked.memory else ""
    chosen = f", the {asked.choose} choice" if asked.choose != "best" else ""
    life = ", to train it and to serve {life.served} tokens" if p.life is not None else ""
    return p(f"{budget_words(asked)}{found}{memory}{life}{chosen}; by {{laws}}", laws=judges(asked.laws, asked.weights))


def _train(p: View[Plan]) -> list[Text]:
    """Time or FLOPs, GPUs, MFU with its band, money; then the layout."""
    run = p.training
    if p.request.gpus and not run.layouts:
        return [p(f"{{request.flops}} FLOPs; cannot be trained on {{request.gpus}}: {run.layout_note}")]
    money = "; {training.money:,.0f} at {request.price_per_gpu_hour} an hour" if run.money is not None else ""
    if run.num_gpus is None:
        return [
            p(
                f"{{counts.train_flops}} FLOPs: {{training.gpu_hours}} {run.device}-hours at {{training.mfu}} "
                f"MFU{money}; by the clock with --gpus and --days"
            )
        ]
    days = "{training.days} day(s)" + (
        " ({training.days.low}–{training.days.high})" if run.days.low is not None else ""
    )
    mfu = "{training.mfu} MFU" + (" ({training.mfu.low..high})" if run.mfu.low is not None else "")
    spent = f"{days} on {{training.num_gpus}} {run.device}: {{training.gpu_hours}} GPU-hours at {mfu}{money}"
    return [p(spent), joined(("fastest layout ", _layout(run.layouts[0]), ", ", _held(p)))]


def _layout(layout: View[LayoutOption]) -> Text:
    """The degrees that split anything."""
    names = [name for name in ("tp", "pp", "ep", "etp", "cp", "dp") if getattr(layout, name) > 1]
    return listed([layout(f"{name} {{{name}:d}}") for name in names] or ["one GPU"], " ")


def _held(p: View[Plan]) -> Text:
    return p("{training.layouts[0].bytes_per_gpu} of {training.usable_bytes} per GPU")


def _serve(p: View[Plan]) -> Text:
    """Memory, how many sequences of which context, and how fast each."""
    use = p.serving
    if use.concurrency is None:
        return Text(f"more than 1,024 {use.device} would be needed")
    where = "{memory.total_bytes}"
    if p.memory.usable_bytes is not None:
        where += " of {memory.usable_bytes}" + (" on each of {memory.num_devices} GPUs" if use.num_devices > 1 else "")
    if not use.concurrency.most_sequences:
        return p(f"{where}: no room for a sequence of {{serving.concurrency.context:,}} tokens")
    room = (
        f"{where}, room for {{serving.concurrency.most_sequences:,}} sequence(s) of {{serving.concurrency.context:,}} "
    )
    on = p(f"{{serving.num_devices:d}} {use.device}")
    return joined((p(f"{room}tokens: "), speeds_text(use.concurrency), " (", on, ")"))


def _rate(p: View[Plan]) -> Text:
    """Learning rate and batch, with the laws' range."""
    if not p.hyperparameters:
        return Text(NONE)
    first = p.hyperparameters[0]
    own = p("peak learning rate {hyperparameters[0].learning_rate}, batch {hyperparameters[0].batch_tokens} tokens by ")
    ends = [_ends(p.hyperparameters, name) for name in ("learning_rate", "batch_tokens")]
    spread = joined((" (laws: ", *ends[0], "; ", *ends[1], ")")) if len(p.hyperparameters) > 1 else ""
    steps = "; in training {training.batch_sequences:,} sequence(s) of {request.seq_len:,}"
    return joined((own, first.law, spread, p(steps) if p.training.num_gpus else ""))


def _ends(laws: tuple[View[HyperParameters], ...], name: str) -> tuple[Number, str, Number]:
    low, high = (pick(laws, key=lambda law: getattr(law, name)) for pick in (min, max))
    return low.number_at(name), " to ", high.number_at(name)


def _quality(p: View[Plan]) -> Text:
    """What is left of the budget, and what more memory or compute would bring."""
    own = "memory to serve" if "inference" in p.request.memory_for and p.request.memory else "memory of its GPUs"
    limits = {"memory": own, "compute": "compute"}
    more = [
        p(f"with {{prices[{at}].factor}}x the {limits[price.resource]} {{prices[{at}].value_ratio:times}}")
        for at, price in enumerate(p.prices)
        if price.resource in limits
    ]
    kept = p("{value_ratio} of the budget would do as well without its limits")
    return joined((kept, "; ", listed(more))) if more else kept


def _choices(p: View[Plan]) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """The best design and those beside it, with what each keeps of the quality; last, what serving would change."""

    def row(found: View[NearEqual], rules: list[str]) -> tuple[str, ...]:
        design = found.design
        return (
            _LABELS[rules[0]] if len(rules) == 1 else " and ".join(rules),
            design(SIZE),
            design("{tokens}"),
            design(EXPERTS),
            found("{value_share}"),
            found("{worst_efficiency}"),
        )

    first = {rules[0]: rules for rules in _rules_by_design(p.it)}
    rows = [row(found, first[found.rule]) for found in p.near_equal if found.rule in first]
    if p.it.if_served:
        served = p.if_served
        rows.append(
            (
                served("serving {served} too"),
                served(SIZE),
                served("{tokens}"),
                NONE,
                served("{value_ratio:share}"),
                NONE,
            )
        )
    return tuple(rows), ("", "params", "tokens", "k+s/E", "quality", "by worst law")


def _rules_by_design(plan: Plan) -> list[list[str]]:
    """The rules that take each design: one that two rules take is one row."""
    found: dict[Design, list[str]] = {}
    for each in plan.near_equal:
        if each.rule in _LABELS:
            found.setdefault(each.design, []).append(each.rule)
    return list(found.values())


def _own_row(plan: Plan) -> int:
    """The row of the plan's own design."""
    rows = _rules_by_design(plan)
    return next((at for at, rules in enumerate(rows) if plan.request.choose in rules), 0)


def _warnings(p: View[Plan]) -> list[Section]:
    plan = p.it
    objective = [law for law in plan.laws if law.role == "objective"]
    turned = next((x for x in p.near_equal if x.rule not in _LABELS), None)
    held = plan.serving.concurrency
    open_ones = open_laws(plan.notes)
    rates = sorted(p.hyperparameters, key=lambda law: law.learning_rate)
    applies: dict[str, Any] = {
        "cannot_train": lambda: plan.request.gpus and not plan.training.layouts,
        "cannot_serve": lambda: plan.request.memory and (held is None or not held.most_sequences),
        "open_law": lambda: bool(open_ones),
        "worse_than_dense": lambda: plan.leverage.pooled.middle < 1,
        "serves_few": lambda: plan.if_concurrent is not None and held is not None and held.most_sequences,
        "serves_one": lambda: plan.if_concurrent is None and held is not None and held.most_sequences == 1,
        "all_outside": lambda: all(law.outside for law in objective),
        "turned_term": lambda: turned is not None,
        "little_left": lambda: plan.value_ratio < LITTLE and "memory" in plan.binding,
        "capped": lambda: "tokens" in plan.binding,
        "many_tokens": lambda: plan.design.tokens > MANY_TOKENS or plan.design.tokens_per_param > MANY_TOKENS_PER_PARAM,
        "rates_apart": lambda: len(rates) > 1 and rates[-1].learning_rate > APART * rates[0].learning_rate,
    }
    more: dict[str, str | Number] = {"open": open_ones}
    if turned is not None:
        more |= {
            "turned": str(turned.rule),
            "other": turned.design(SIZE),
            "other_tokens": turned.design.number_at("tokens"),
        }
    if plan.if_concurrent is not None:
        more["users"] = p.if_concurrent(SIZE)
    if rates:
        more |= {f"{end}_rate": rates[at].number_at("learning_rate") for end, at in (("low", 0), ("high", -1))}
    return warning_sections("plan", p, applies, **more)
