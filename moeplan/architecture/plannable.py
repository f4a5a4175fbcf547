"""The kinds of attention that plans can have; it stands alone, so that a command's help starts fast."""

PLANNABLE = ("gqa", "mla")
"""Names of `moeplan.architecture.attention.KINDS` that say how the search chooses their sizes (`Attention.planned`)."""
