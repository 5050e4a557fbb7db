"""How this package starts Python processes of its own."""

from __future__ import annotations

import sys
from pathlib import Path

HOME = str(Path(__file__).parents[1])


def command_of(module: str) -> tuple[str, ...]:
    """The command line of a Python process that runs `main` of a module of this package.

    Arguments may follow. It imports from where this process does, and from nowhere else: by itself, Python would look
    into the current folder first, and take the `random.py` of a user for its own.
    """
    places = [entry for entry in sys.path if entry]  # an empty one is the current folder
    if HOME not in places:
        places.append(HOME)
    return sys.executable, "-c", f"import sys; sys.path[:] = {places!r}; from {module} import main; main()"
