"""li2025's strict comparison, as blocks of a report."""

from __future__ import annotations

from moeplan.quantities import interval, number
from moeplan.report.blocks import Block, Column, Paragraph, Table, table
from moeplan.report.comparison_laws import MODEL
from moeplan.report.text import NONE, Text, joined
from moeplan.report.view import View
from moeplan.studies.comparison.resources import EqualResources, StrictStudy
from moeplan.studies.comparison.result import Comparison


def strict_headline(c: View[Comparison]) -> Text:
    """Where the MoE stands in the study, and how often it repeats its data."""
    strict = c.resources
    said = {
        "moe": "a rate at which li2025's MoE beat the dense model of the same params and compute",
        "dense": "a rate at which li2025's dense model of the same params and compute was better",
        "not_measured": "a rate that li2025 did not measure",
    }[strict.verdict]
    return c(
        "A {model} activates {resources.active_rate} of its params, {said} ({resources.study.name} study: {region}). "
        "On the {resources.unique_tokens} unique tokens that the comparison allows both, it needs {resources.epochs} "
        "epochs.",
        model=c.models[0](MODEL),
        said=said,
        region=_region(strict.study),
    )


def _region(study: View[StrictStudy]) -> Text:
    """Where the MoE wins in a study, in words."""
    if study.region_low is None and study.region_high is None:
        return Text(f"every rate measured wins, {_measured(study)}, so the edges are not measured")
    return joined(("it wins at ", _edges(study), ", interpolated"))


def _measured(study: View[StrictStudy]) -> str:
    return interval("active_param_ratio", study.points[0].active_rate, study.points[-1].active_rate)


def strict_blocks(c: View[Comparison]) -> tuple[Block, ...]:
    """The measured points of li2025, where the MoE stands among them, and what repeats cost."""
    strict = c.resources
    study = strict.study
    size, best = ("{total_params}", "{train_flops}"), "{zhao2025_low..zhao2025_high}"
    rows = [(one.name, *map(one, size), one("{best_active_rate}"), _edges(one), one(best)) for one in strict.studies]
    here = ("this MoE", *map(strict, size), strict("({active_rate})"), NONE, strict(best))
    columns = ("", "N", "C", "best N_a/N", "MoE beats dense at", "best by zhao2025")
    points: tuple[Column, ...] = (
        (f">N_a/N ({study.name}, measured)", "{active_rate}"),
        (">bits a char", "{bits_per_char:.4f}"),
        ("than dense", lambda point: "better" if point.beats_dense else "worse"),
    )
    dense = study("The dense {name} model of the same compute has {dense_bits_per_char:.4f}. ")
    return (
        Table((*rows, here), columns, right=(1, 2, 3, 4, 5), strong=(len(rows),)),
        Paragraph(
            "li2025 measured MoE and dense models of the same params N (without vocabulary) and compute C; edges are "
            "straight lines between its points, and where every rate measured wins the edges are not measured. "
            "zhao2025 knows no dense models; its best rate is at the same N and C, the lower with C = 6*N_a*D, the "
            "higher with attention as li2025 counts it."
        ),
        Paragraph(
            strict(
                "The {study.name} study is the nearest in size and is used here, but N differs ({total_params} against "
                "{study.total_params}), and so does C ({train_flops} against {study.train_flops}): the paper found the "
                "same best rate at 2B, 3B and 7B, and measured nothing larger."
            )
        ),
        table(study.points, points),
        Paragraph(joined((dense, _own_rate(strict)))),
        Paragraph(_reuse(c)),
    )


def _edges(study: View[StrictStudy]) -> str:
    """Where the MoE beats the dense model of a study; all rates measured where neither edge is."""
    if study.region_low is None and study.region_high is None:
        return f"all of {_measured(study)}"
    if study.region_low and study.region_high:
        return study("{region_low..region_high}")
    low = number(100 * study.region_low) if study.region_low else "not measured"
    return joined((low, "–", study("{region_high}") if study.region_high else "not measured"))


def _own_rate(strict: View[EqualResources]) -> Text:
    if strict.bits_per_char is None:
        return strict(
            "{active_rate} lies outside the rates measured, so nothing is said about it; --fix active_param_ratio=0.2 "
            "plans a MoE near the best rate."
        )
    better = "better" if strict.verdict == "moe" else "worse"
    return strict(f"At {{active_rate}} the MoE's points interpolate to {{bits_per_char:.4f}}, {better}.")


def _reuse(c: View[Comparison]) -> Text:
    strict = c.resources
    points = ", ".join(
        f"{epochs} {'epoch' if epochs == '1' else 'epochs'} {bits:.4f}" for epochs, bits in strict.reuse.items()
    )
    if strict.reuse_bits_per_char is not None:
        own = "interpolated at this MoE's {own} {reuse_bits_per_char:.4f}"
    elif strict.epochs > 1:
        own = "this MoE's {epochs} epochs are more than it measured"
    else:
        own = "this MoE repeats nothing"
    moe, dense = c.models[:2]
    text: Text = strict(
        f"Same unique data, {{unique_tokens}} tokens ({{unique_basis}}): {moe.name} takes {{own}} over it, "
        f"{dense.name} {{other}}. Bits a character by epochs in li2025 (7B, 20 % active): {points}; {own}. By "
        "muennighoff2023, fitted on dense models, {worth_share} of the MoE's tokens count, and so its work is "
        "counted below; MoEs suffer from repeats sooner (arXiv 2609.11917).",
        own=_epochs(strict, "epochs"),
        other=_epochs(strict, "dense_epochs"),
    )
    return text


def _epochs(strict: View[EqualResources], field: str) -> Text:
    text = strict(f"{{{field}}}")
    return joined((text, " epoch" if text == "1" else " epochs"))
