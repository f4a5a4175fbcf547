"""The kinds of attention that plans can have; it stands alone, so that a command's help starts fast."""

PLANNABLE = ("gqa", "mla")
"""Names of `moeplan.architecture.attention.KINDS` that say how the search chooses their sizes (`Attention.planned`)."""
STATES = {"gdn": ("gated_delta_net", "gqa"), "kda": ("kda", "mla"), "mamba2": ("mamba2", "gqa")}
"""Blocks with a state that stand beside full attention, by their word: (their kind, the kind of full attention)."""
MOST_IN_A_ROW = 16
"""Most blocks of one kind in a row; published models have up to 9."""
LATENT = (1, 2, 4)
"""How many times narrower than the model the experts of a plan may be."""


def pattern_words() -> str:
    """What a pattern of attention may be, in words."""
    examples = " or ".join(f"{word}-3:1" for word in STATES)
    return f"{' or '.join(PLANNABLE)}, or blocks with a state before each of full attention, as in {examples}"
