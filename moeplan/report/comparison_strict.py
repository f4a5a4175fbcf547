"""li2025's strict comparison, as blocks of a report."""

from __future__ import annotations

from moeplan.report.blocks import NONE, Block, Paragraph, Table, interval, number, percent
from moeplan.report.comparison_laws import model_text
from moeplan.studies.comparison.result import Comparison, EqualResources, Study
from moeplan.units import format_count, format_flops


def strict_headline(found: Comparison, strict: EqualResources) -> str:
    """Where the MoE stands in the study, and how often it repeats its data."""
    said = {
        "moe": "a rate at which li2025's MoE beat the dense model of the same params and compute",
        "dense": "a rate at which li2025's dense model of the same params and compute was better",
        "not_measured": "a rate that li2025 did not measure",
    }[strict.verdict]
    region = _region(strict.study)
    return (
        f"{model_text(found.models[0])} activates {percent(strict.active_rate)} of its params, {said} ({region}). "
        f"On the {format_count(strict.unique_tokens)} unique tokens that the comparison allows both, it needs "
        f"{number(strict.epochs)} epochs."
    )


def _region(study: Study) -> str:
    """Where the MoE wins in a study, in words."""
    if study.region_low is None and study.region_high is None:
        return f"{study.name} study: every rate measured wins, {_measured(study)}, so the edges are not measured"
    return f"{study.name} study: it wins at {_edges(study)}, interpolated"


def _measured(study: Study) -> str:
    return interval("active_param_ratio", study.points[0].active_rate, study.points[-1].active_rate)


def strict_blocks(found: Comparison, strict: EqualResources) -> tuple[Block, ...]:
    """The measured points of li2025, where the MoE stands among them, and what repeats cost."""
    study = strict.study
    rows = [
        (
            one.name,
            format_count(one.total_params),
            format_flops(one.train_flops),
            percent(one.best_active_rate),
            _edges(one),
            interval("active_param_ratio", one.zhao2025_low, one.zhao2025_high),
        )
        for one in strict.studies
    ]
    here = (
        "this MoE",
        format_count(strict.total_params),
        format_flops(strict.train_flops),
        f"({percent(strict.active_rate)})",
        NONE,
        interval("active_param_ratio", strict.zhao2025_low, strict.zhao2025_high),
    )
    columns = ("", "N", "C", "best N_a/N", "MoE beats dense at", "best by zhao2025")
    points = tuple(
        (
            percent(point.active_rate),
            f"{point.bits_per_char:.4f}",
            "better" if point.beats_dense else "worse",
        )
        for point in study.points
    )
    blocks: list[Block] = [
        Table((*rows, here), columns, right=(1, 2, 3, 4, 5), strong=(len(rows),)),
        Paragraph(
            "li2025 measured MoE and dense models of the same params N (without vocabulary) and compute C; edges are "
            "straight lines between its points, and where every rate measured wins the edges are not measured. "
            "zhao2025 knows no dense models; its best rate is at the same N and C, the lower with C = 6*N_a*D, the "
            "higher with attention as li2025 counts it."
        ),
        Paragraph(_nearest(strict)),
        Table(points, (f"N_a/N ({study.name}, measured)", "bits a char", "than dense"), right=(0, 1)),
        Paragraph(
            f"The dense {study.name} model of the same compute has {study.dense_bits_per_char:.4f}. "
            + _own_rate(strict)
        ),
        Paragraph(_reuse(found, strict)),
    ]
    return tuple(blocks)


def _edges(study: Study) -> str:
    """Where the MoE beats the dense model of a study; all rates measured where neither edge is."""
    if study.region_low is None and study.region_high is None:
        return f"all of {_measured(study)}"
    low = percent(study.region_low)[:-2] if study.region_low else "not measured"
    return f"{low}–{percent(study.region_high) if study.region_high else 'not measured'}"


def _nearest(strict: EqualResources) -> str:
    study = strict.study
    return (
        f"The {study.name} study is the nearest in size and is used here, but N differs "
        f"({format_count(strict.total_params)} against {format_count(study.total_params)}), and so does C "
        f"({format_flops(strict.train_flops)} against {format_flops(study.train_flops)}): the paper found the same "
        "best rate at 2B, 3B and 7B, and measured nothing larger."
    )


def _own_rate(strict: EqualResources) -> str:
    if strict.bits_per_char is None:
        return (
            f"{percent(strict.active_rate)} lies outside the rates measured, so nothing is said about it; "
            "--fix active_param_ratio=0.2 plans a MoE near the best rate."
        )
    better = "better" if strict.verdict == "moe" else "worse"
    return f"At {percent(strict.active_rate)} the MoE's points interpolate to {strict.bits_per_char:.4f}, {better}."


def _reuse(found: Comparison, strict: EqualResources) -> str:
    points = ", ".join(f"{epochs} epochs {bits:.4f}" for epochs, bits in strict.reuse.items()).replace(
        "1 epochs", "1 epoch"
    )
    moe, dense = found.models[0], found.models[1]
    own = (
        f"interpolated at this MoE's {_epochs(strict.epochs)} {strict.reuse_bits_per_char:.4f}"
        if strict.reuse_bits_per_char is not None
        else f"this MoE's {number(strict.epochs)} epochs are more than it measured"
        if strict.epochs > 1
        else "this MoE repeats nothing"
    )
    return (
        f"Same unique data, {format_count(strict.unique_tokens)} tokens ({strict.unique_basis}): {moe.name} takes "
        f"{_epochs(strict.epochs)} over it, {dense.name} {_epochs(strict.dense_epochs)}. Bits a character by epochs in "
        f"li2025 (7B, 20 % active): {points}; {own}. By muennighoff2023, fitted on dense models, "
        f"{percent(strict.worth_share)} of the MoE's tokens count, and so its work is counted below; MoEs suffer from "
        "repeats sooner (arXiv 2609.11917)."
    )


def _epochs(count: float) -> str:
    text = number(count)
    return f"{text} {'epoch' if text == '1' else 'epochs'}"
