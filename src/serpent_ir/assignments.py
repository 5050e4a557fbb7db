"""`key=value`, as it stands on a command line and in the name of a model's variant."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from serpent_ir.errors import UnknownNameError


def parse_assignments(assignments: Iterable[str], kind: str, example: str) -> dict[str, Any]:
    """["blur_sigma=2", "kind=box"] -> {"blur_sigma": 2, "kind": "box"}: a value is JSON, and text where it is none.

    Raises UnknownNameError, in which `kind` says what each of them is, when one is not of the form key=value.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not (key and separator):
            raise UnknownNameError(f"{kind} {assignment!r}", f"key=value, such as {example}")
        try:
            values[key] = json.loads(text)
        except json.JSONDecodeError:
            values[key] = text
    return values
