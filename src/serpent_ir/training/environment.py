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


def _commit() -> str | None:
    """The commit of the source tree, with "+changes" when files differ from it; None without git or a commit."""
    source = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "-C", str(source), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return described.stdout.strip() or None
