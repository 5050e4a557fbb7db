"""A result on disk."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from serpent_ir.errors import FileWriteError


def write_json(content: dict[str, Any], path: str | Path) -> None:
    """Write `content` as indented JSON: whole or not at all (a temporary file in the same folder, then a rename).

    Raises FileWriteError when the file cannot be written, or a number is not finite (JSON has no name for it).
    """
    path = Path(path)
    try:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise FileWriteError(f"{path} would hold a number that is not finite", "finite numbers") from error
    temporary = path.with_name(f".serpent-{secrets.token_hex(8)}.part")
    try:
        temporary.write_text(text, encoding="ascii")
        os.replace(temporary, path)
    except OSError as error:
        raise FileWriteError(f"{path} cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)
