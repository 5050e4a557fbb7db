"""serpent degrade: clean image files in, blurred (noisy, small, ...) ones out, to try restoration on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serpent_ir.cli.options import TaskOptions, parse_options
from serpent_ir.cli.pictures import process


def degrade(
    source: Annotated[Path, typer.Argument(metavar="IN", help="An image file, or a folder (with all its folders).")],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="File or folder to write; without it, <name>-degraded next to IN."),
    ] = None,
    task: Annotated[str, typer.Option(help="A task, or a file (.json, .yaml) with a list of operators.")] = "photo",
    seed: Annotated[int, typer.Option(help="With the file's name in the folder, decides the noise.")] = 0,
    option: TaskOptions = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Allow OUT to be the file IN itself.")] = False,
) -> None:
    """Degrade an image file, or every image of a folder, as the training data of a task are degraded.

    A file's result depends on the seed and its own name only, not on the
    other files. It is clipped and rounded to the samples of the file; a
    .jpg adds its own losses. sr2, sr4 and sr8 make a small picture, what
    inpaint removes is transparent (and the file .png where it was .jpg).

    Prints the path of the result. In a folder, files that cannot be read
    or are no images are named and left out, and the exit status is 1.
    """

    from serpent_ir.restoration import Degrader

    degrader = Degrader(task, seed, **parse_options(option))
    alpha = degrader.operator.channels == 4
    process(source, target, lambda: degrader.degrade_picture, "degraded", overwrite, alpha)
