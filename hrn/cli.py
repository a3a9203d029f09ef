"""Shared command-line helpers: error handling, paths, and LABEL=PATH arguments."""

import argparse
import errno
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from hrn.errors import HRNError, ReportedError


def path_argument(text: str) -> Path:
    """Type of a path argument. An empty one, such as an unset shell variable, is an error and not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def split_label(text: str) -> tuple[str, str]:
    """Split `LABEL=PATH` into the label and the path. The label is empty if `text` is an existing path or has no `=`.

    Of several `=`, the first one before an existing path counts, or simply the first one.

    Raises:
        HRNError: the path is empty.
    """
    parts = text.split("=")
    splits = [("=".join(parts[:i]), "=".join(parts[i:])) for i in range(len(parts))]
    existing = (split for split in splits if split[1] and Path(split[1]).exists())
    label, path = next(existing, splits[min(1, len(splits) - 1)])
    if not path:
        raise HRNError(f"{text!r}: the path is empty")
    return label, path


def run_cli(main: Callable[[], int | None]) -> int:
    """Run `main` and return the exit code.

    An :class:`HRNError` is printed to stderr, except a :class:`ReportedError`, and returns 2. A path that cannot be looked
    up, because it is too long or in a folder without permission, is reported in the same way. Ctrl-C returns 130. If the
    reader of stdout or stderr has ended (`| head`), 141 is returned. Characters that stdout or stderr cannot encode, such
    as those of a file name that is not valid UTF-8, are escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main() or 0
        print(end="", flush=True)
        return code
    except ReportedError:
        return 2
    except BrokenPipeError:
        closed = [stream for stream in (sys.stdout, sys.stderr) if stream and _has_no_reader(stream)]
        if not closed:  # another pipe
            raise
        for stream in closed:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # otherwise flushing fails again at exit
        return 141
    except HRNError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None or error.errno not in (errno.EACCES, errno.ENAMETOOLONG):
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _has_no_reader(stream: IO) -> bool:
    """Return whether a stream is a pipe whose reader has ended. True on systems that cannot tell."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP act as Ctrl-C does, so that unfinished files are deleted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not on Windows or under nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)
