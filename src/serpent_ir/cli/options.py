"""`--option key=value` of the commands that degrade images."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from serpent_ir.errors import UnknownNameError

TaskOptions = Annotated[
    list[str] | None, typer.Option("--option", help="An option of the task, such as blur_sigma=2; may be repeated.")
]


def parse_options(assignments: list[str] | None) -> dict[str, Any]:
    """["blur_sigma=2", "kind=box"] -> {"blur_sigma": 2, "kind": "box"}; numbers, true, false and null as in JSON.

    Raises UnknownNameError when one is not of the form key=value.
    """
    options: dict[str, Any] = {}
    for assignment in assignments or []:
        key, separator, text = assignment.partition("=")
        if not (key and separator):
            raise UnknownNameError(f"--option {assignment!r}", "key=value, such as blur_sigma=2")
        try:
            options[key] = json.loads(text)
        except json.JSONDecodeError:
            options[key] = text
    return options
