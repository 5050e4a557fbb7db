"""Replacing a file in one stroke, and showing a file's name to people."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_NAMES = ".serpent-*.part"
"""Pattern of the names that `replacing` writes under; a killed process leaves one such file behind."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The name of a temporary file to write, which becomes `path` when the block ends without an exception.

    The temporary file lies in the same folder, under a hidden name. At no time is a half-written file found under
    `path`: the content is on the disk before the name changes. A file that was there before keeps its permissions and,
    when the block raises anything (KeyboardInterrupt too), its content; a new file gets those that the umask allows.

    Raises OSError when the folder is missing or cannot be written, or `path` is a folder.
    """
    path = Path(path)
    temporary = path.parent / TEMPORARY_NAMES.replace("*", secrets.token_hex(8))
    try:
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE((path if path.is_file() else temporary).stat().st_mode)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def printable(name: str | os.PathLike[str]) -> str:
    """A file name, or a text that holds one, fit for a terminal or a picture.

    Control characters and bytes that are no text are shown as escapes.
    """
    text = os.fspath(name).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
