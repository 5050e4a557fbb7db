"""A result on disk, as JSON or any other text."""

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
    try:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise FileWriteError(f"{path} would hold a number that is not finite", "finite numbers") from error
    write_text(text, path)


def write_text(text: str, path: str | Path) -> None:
    """Write `text` in UTF-8: whole or not at all. Raises FileWriteError when the file cannot be written."""
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileWriteError(f"{path} cannot be written ({error.strerror})") from error
