"""What a run was made with: versions, threads, machine, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from serpent_ir import __version__
from serpent_ir.data import shown

SOURCE = Path(__file__).parents[1]


def environment() -> dict[str, Any]:
    """Versions of what computes, CPU threads, GPU, command line, and the git commit when run from a checkout.

    URLs of the command line are those of `shown`.
    """
    return {
        "serpent_ir": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "lightning", "numpy", "pyvips")},
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": [shown(argument) for argument in sys.argv],
        "commit": _commit(),
    }


def source_changes() -> str | None:
    """What differs between the source tree and its commit, as a patch; None where nothing does, or without git.

    Of files that git does not know yet, those that are no text are named alone.
    """
    if not _is_checkout():
        return None
    changes = _git("diff", "HEAD", "--binary", "--", str(SOURCE)) or ""
    top = (_git("rev-parse", "--show-toplevel") or "").rstrip("\n")
    for name in _new_files():
        changes += _git("-C", top, "diff", "--no-index", "--", os.devnull, name, fine=(0, 1)) or ""
    return changes or None


def _commit() -> str | None:
    """The commit of the source tree, with "+changes" when files differ from it or are new; None without git or a
    commit, and for files that git does not know, as of a package that was installed inside another repository."""
    if not _is_checkout():
        return None
    described = (_git("describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*") or "").strip()
    if described and not described.endswith("+changes") and _new_files():
        described += "+changes"
    return described or None


def _is_checkout() -> bool:
    return _git("ls-files", "--error-unmatch", "--", __file__) is not None


def _new_files() -> list[str]:
    """Source files that git neither knows nor ignores, from the repository's top."""
    names = _git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--", str(SOURCE)) or ""
    return names.split("\0")[:-1]


def _git(*arguments: str, fine: Sequence[int] = (0,)) -> str | None:
    """What git says of the source tree; None without git or a repository, or with another exit status."""
    command = ["git", "-C", str(SOURCE), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", check=False)
    except FileNotFoundError:
        return None
    return answer.stdout if answer.returncode in fine else None
