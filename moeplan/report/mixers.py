"""How the blocks of a model mix tokens, in words."""

from __future__ import annotations

from moeplan.architecture.hybrid import HybridArchitecture
from moeplan.architecture.shape import Architecture
from moeplan.report.text import Text, joined, listed
from moeplan.report.view import View

_FULL = ("gqa", "mla")


def mixed(shape: View[Architecture]) -> Text:
    """What blocks have in place of full attention, as "; 36 of 48 layers gated delta-net"; empty where none has."""
    runs = shape.it.blocks.attentions if isinstance(shape.it, HybridArchitecture) else ()
    found: list[Text] = []
    for at, run in enumerate(runs):
        window = getattr(run.attention, "window", 0)
        if not window and run.attention.kind in _FULL:
            continue
        of = " of {num_layers} layers" if not found else ""
        kind = f" over {{blocks.attentions[{at}].attention.window}} tokens" if window else f" {run.attention.label}"
        found.append(joined((shape.count_at(f"blocks.attentions[{at}].layers"), shape(of + kind))))
    return joined(("; ", listed(found))) if found else Text("")
