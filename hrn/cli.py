"""What the front doors share: how they end, and how they speak."""

import sys
from collections.abc import Callable

from hrn.errors import HRNError


def run_cli(main: Callable[[], int | None]) -> int:
    """Run `main`; bad input ends in one message on stderr and exit code 2, Ctrl-C in 130.

    What stdout and stderr cannot write, such as a file's name that is no Unicode, is escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return main() or 0
    except HRNError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
