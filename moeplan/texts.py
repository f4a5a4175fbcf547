"""Text as it is shown or written: no control code leaves its line or its comment, words agree with their number."""

from __future__ import annotations

from collections.abc import Collection

_KEPT_FORMATS = frozenset("\u00ad\u200c\u200d")
"""Format characters that words are spelled with: soft hyphen, joiner and non-joiner."""


def is_control(character: str) -> bool:
    """Whether a character is unseen: a control code, a line separator, a change of direction, a surrogate."""
    if " " <= character <= "~":
        return False
    import unicodedata  # late, so that --help starts fast

    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and character not in _KEPT_FORMATS)


def printable(text: str, keep: str = "") -> str:
    r"""The text with every control character but those of `keep` as its Python escape, such as \x1b or \u202e."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one if one in keep or not is_control(one) else one.encode("unicode_escape").decode("ascii") for one in text
    )


def agreed(number: str, words: str) -> str:
    """Words that follow a number as it is written; "(s)" in them is nothing after "1" and an s after any other."""
    return words.replace("(s)", "" if number == "1" else "s")


def counted(count: float, words: str) -> str:
    """A count and what it counts: `counted(1, "largest run(s)")` is "1 largest run"."""
    text = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{text} {agreed(text, words)}"


def sentence(text: str, names: Collection[str] = ()) -> str:
    """A text with a capital and a full stop; a name at its beginning, of `names` or with a _, keeps its case."""
    first = text.split(maxsplit=1)[0].rstrip(",:;") if text else ""
    begun = text if first in names or "_" in first else f"{text[:1].upper()}{text[1:]}"
    return begun if begun.endswith((".", "!", "?")) else f"{begun}."


def comment(text: str) -> str:
    """One line of comment, in Python, YAML and argument files alike, that no text can end."""
    return f"# {printable(text)}"
