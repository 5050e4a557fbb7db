"""Standard output: the paths, lines and images that other programs read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

from serpent_ir.errors import FileWriteError

_ours: TextIO | None = None
"""Standard output, while for all others `sys.stdout` is standard error."""


@contextmanager
def ours_alone() -> Iterator[None]:
    """Within the block, what others print, in whichever thread, goes to standard error."""
    global _ours
    _ours = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _ours = None


def stream() -> TextIO:
    return _ours or sys.stdout


def check_open() -> None:
    """Raise FileWriteError when there is no standard output."""
    if sys.stdout is None:
        raise FileWriteError("standard output is closed", "one that is open, such as a file or /dev/null")


def write(content: bytes) -> None:
    """Write it at once. Raises FileWriteError when that cannot be done, BrokenPipeError when nobody reads any more."""
    check_open()
    try:
        stream().buffer.write(content)
        stream().buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon()
        raise FileWriteError(f"standard output cannot be written ({error.strerror})", "a place with room") from error


def write_line(line: str | bytes | os.PathLike[str]) -> None:
    """`write` of a line; a path byte for byte."""
    write(os.fsencode(line) + b"\n")


def abandon() -> None:
    """What is still to be written goes nowhere, else the end of the process would fail of it once more."""
    with suppress(OSError, AttributeError):  # it is no file, or closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream().fileno())
        os.close(nowhere)
