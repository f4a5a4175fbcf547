"""How fast a served model answers, in words."""

from __future__ import annotations

from moeplan.cost.serving.concurrency import Concurrency
from moeplan.report.text import Text
from moeplan.report.view import View
from moeplan.studies.serving_fit import ServingFit


def speeds_text(held: View[Concurrency] | View[ServingFit]) -> Text:
    """The speed of one user alone and, where more fit, that of each and of a GPU with all of them."""
    said = "{tokens_per_second_per_user_alone:number} tokens/s for one user"
    if held.most_sequences > 1:
        said += ", {tokens_per_second_per_user:number} per user with all of them, "
        said += "{tokens_per_second_per_gpu:number} per GPU"
    text: Text = held(said)
    return text
