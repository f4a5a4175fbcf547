"""One family of errors: what was wrong, the value, and what would work, in one sentence.

Every error a user can cause derives from `MoeplanError` and carries the exit code the command line ends with.
"""

from __future__ import annotations


class MoeplanError(Exception):
    """A user's mistake or an impossible request; `str(error)` is the one sentence to show.

    `exit_code` is 2 for arguments and files that cannot be read as what they should be, 1 for requests that were
    understood but cannot be met.
    """

    exit_code = 2


class UsageError(MoeplanError):
    """An argument, or a file's content, that is not what it should be. Exit code 2."""

    exit_code = 2


class LawError(UsageError):
    """A law file that is unreadable, malformed or inconsistent with its form. Exit code 2."""


class OverwritingError(MoeplanError):
    """A file to be both read and written. Exit code 2; no `UsageError`, which readers may recover from."""

    exit_code = 2


class InfeasibleError(MoeplanError):
    """A well-formed request that nothing satisfies; the sentence names the nearest thing that would. Exit code 1."""

    exit_code = 1
