"""What a run was made with: versions, threads, machine, commit."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from serpent_ir import __version__

SOURCE = Path(__file__).parents[1]


def environment() -> dict[str, Any]:
    """Versions of what computes, CPU threads, GPU, command line, and the git commit when run from a checkout."""
    return {
        "serpent_ir": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "lightning", "numpy", "pyvips")},
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": sys.argv,
        "commit": _commit(),
    }


def source_changes() -> str | None:
    """What differs between the source tree and its commit, as a patch; None where nothing does, or without git."""
    return _git("diff", "HEAD", "--binary", "--", str(SOURCE)) or None


def _commit() -> str | None:
    """The commit of the source tree, with "+changes" when files differ from it; None without git or a commit, and for
    files that git does not know, as of a package that was installed inside another repository."""
    if _git("ls-files", "--error-unmatch", "--", __file__) is None:
        return None
    described = _git("describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*")
    return described.strip() or None if described else None


def _git(*arguments: str) -> str | None:
    """What git says of the source tree; None without git or a repository."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(SOURCE), *arguments], capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError:
        return None
    return answer.stdout if answer.returncode == 0 else None
