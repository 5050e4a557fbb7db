"""A result on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from serpent_ir.errors import FileWriteError
from serpent_ir.files import replacing


def write_json(content: dict[str, Any], path: str | Path) -> None:
    """Write `content` as indented JSON: whole or not at all.

    Raises FileWriteError when the file cannot be written, or a number is not finite (JSON has no name for it).
    """
    path = Path(path)
    try:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise FileWriteError(f"{path} would hold a number that is not finite", "finite numbers") from error
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="ascii")
    except OSError as error:
        raise FileWriteError(f"{path} cannot be written ({error.strerror})") from error
