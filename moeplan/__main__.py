"""`moeplan` and `python -m moeplan`: the command line, with Ctrl-C a sentence from the first moment on."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from moeplan.cli import main as run

        run()
    except KeyboardInterrupt:  # while modules are loaded; commands say it themselves
        sys.stderr.write("Error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
