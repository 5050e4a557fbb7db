"""Options that several commands have."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import typer

from serpent_ir.assignments import parse_assignments
from serpent_ir.errors import RangeError

TaskOptions = Annotated[
    list[str] | None, typer.Option("--option", help="An option of the task, such as blur_sigma=2; may be repeated.")
]

ListOption = Annotated[
    str | None,
    typer.Option(
        "--list",
        help="A file with a path on each line, or - for standard input; then OUT is the argument. Results lie in it"
        " under their paths below the current folder, or below the folder that holds all where one lies elsewhere.",
    ),
]
NullOption = Annotated[
    bool, typer.Option("--null", "-0", help="The paths of --list end in zero bytes, as from find -print0.")
]
FormatOption = Annotated[
    Literal["png", "jpg", "tiff", "webp", "avif"] | None,
    typer.Option("--format", help="Of the results.", show_default="that of the input"),
]
QualityOption = Annotated[
    int | None, typer.Option(min=1, max=100, help="Of formats with losses.", show_default="95 for jpg")
]
DepthOption = Annotated[
    Literal["8", "16", "float"] | None,
    typer.Option("--depth", help="Bits of a sample, where the format has them.", show_default="that of the input"),
]
AgainOption = Annotated[bool, typer.Option("--again", help="Of many files, do also what an earlier run did.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print a line of JSON for each file, and one for all.")]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        help="What may be taken for an image, such as 1.5G or 800M.", show_default="nine tenths of what is free"
    ),
]


def parse_memory(text: str | None) -> int | None:
    """Bytes, from a number with K, M, G or T (powers of 1000) behind it, or without. Raises RangeError."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMgGtT]?)[bB]?", text.strip())
    if match is None:
        raise RangeError(f"memory {text!r}", "a number of bytes, such as 1500M or 1.5G")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def parse_options(assignments: list[str] | None) -> dict[str, Any]:
    """What the options given on the command line say, see `parse_assignments`."""
    return parse_assignments(assignments or [], "--option", "blur_sigma=2")
