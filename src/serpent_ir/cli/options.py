"""`--option key=value` of the commands that degrade images."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from serpent_ir.assignments import parse_assignments

TaskOptions = Annotated[
    list[str] | None, typer.Option("--option", help="An option of the task, such as blur_sigma=2; may be repeated.")
]


def parse_options(assignments: list[str] | None) -> dict[str, Any]:
    """What the options given on the command line say, see `parse_assignments`."""
    return parse_assignments(assignments or [], "--option", "blur_sigma=2")
