"""Shared command-line helpers: error handling and LABEL=PATH arguments."""

import sys
from collections.abc import Callable
from pathlib import Path

from hrn.errors import HRNError


def split_label(text: str) -> tuple[str, str]:
    """Split `LABEL=PATH` into the label and the path. The label is empty if `text` is an existing folder or has no `=`."""
    label, _, path = ("", "", text) if Path(text).is_dir() else text.rpartition("=")
    return label, path


def run_cli(main: Callable[[], int | None]) -> int:
    """Run `main` and return the exit code.

    An :class:`HRNError` is printed to stderr and returns 2. Ctrl-C returns 130. Characters that stdout or stderr cannot
    encode, such as those of a file name that is not valid UTF-8, are escaped.
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
