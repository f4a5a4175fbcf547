"""Text from outside, made harmless where it is shown or written: no control code leaves its line or its comment."""

from __future__ import annotations

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


def comment(text: str) -> str:
    """One line of comment, in Python, YAML and argument files alike, that no text can end."""
    return f"# {printable(text)}"
