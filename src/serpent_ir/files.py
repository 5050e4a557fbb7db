"""Replacing a file in one stroke, keeping other processes out, and showing a file's name to people."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)

TEMPORARY_NAMES = ".serpent-*.part"
"""Pattern of the names that `replacing` writes under; a killed process leaves one such file behind."""

SECONDS_BETWEEN_LOOKS = 0.1
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems without locks answer."""


@contextmanager
def replacing(path: str | os.PathLike[str], alone: bool = False) -> Iterator[Path]:
    """The name of a temporary file to write, which becomes `path` when the block ends without an exception.

    The temporary file lies in the same folder, under a hidden name. At no time is a half-written file found under
    `path`: the content is on the disk before the name changes. A file that was there before keeps its permissions and,
    when the block raises anything (KeyboardInterrupt too), its content; a new file gets those that the umask allows.

    alone: nobody else writes `path` meanwhile. The hidden name is then `leftover_name(path)`, and what a killed process
    left under it is replaced.

    Raises OSError when the folder is missing or cannot be written, or `path` is a folder.
    """
    path = Path(path)
    temporary = leftover_name(path) if alone else path.parent / TEMPORARY_NAMES.replace("*", secrets.token_hex(8))
    try:
        if alone:
            temporary.unlink(missing_ok=True)
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE((path if path.is_file() else temporary).stat().st_mode)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def leftover_name(path: Path) -> Path:
    """Where `replacing(path, alone=True)` writes, and what a process that is killed meanwhile leaves behind."""
    return path.parent / TEMPORARY_NAMES.replace("*", hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16])


@contextmanager
def sole_use(lock: Path, patience: float | None = None) -> Iterator[None]:
    """Within the block, nobody else is in such a block for the same `lock`, a file that is made for this and stays.

    patience: seconds to wait for the others to leave; None: as long as it takes. A process that ends leaves by that;
    one that it forked keeps the lock until it ends too. Where the file system knows no locks, a warning says so.

    Raises TimeoutError when the others stay, OSError when the file cannot be made.
    """
    import fcntl  # of Unix alone

    end = None if patience is None else time.monotonic() + patience
    while True:
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if end is not None and time.monotonic() >= end:
                    raise TimeoutError(f"{lock} is locked by another process") from error
                time.sleep(SECONDS_BETWEEN_LOOKS)
                continue
            except OSError as error:
                if error.errno not in WITHOUT_LOCKS:
                    raise
                log.warning("%s cannot be locked (%s): nothing keeps others out", lock, error.strerror)
            else:
                if not is_at(file, lock):
                    continue  # whoever had it removed it: another one counts
            yield
            return


def is_at(file: IO[Any], path: Path) -> bool:
    """Whether an open file is the one that `path` leads to."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def printable(name: str | os.PathLike[str]) -> str:
    """A file name, or a text that holds one, fit for a terminal or a picture.

    Control characters and bytes that are no text are shown as escapes.
    """
    text = os.fspath(name).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
