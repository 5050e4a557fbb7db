"""serpent degrade: clean image files in, blurred (noisy, small, ...) ones out, to try restoration on."""

from __future__ import annotations

from typing import Annotated

import typer

from serpent_ir.cli.options import (
    AgainOption,
    DepthOption,
    FormatOption,
    JsonOption,
    ListOption,
    NullOption,
    QualityOption,
    TaskOptions,
    parse_options,
)
from serpent_ir.cli.pictures import Engine, Request, process


def degrade(
    source: Annotated[
        str | None,
        typer.Argument(metavar="IN", help="An image file, a folder (with all its folders), or - for standard input."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="OUT", help="File or folder to write, or - for standard output; without it, <name>-degraded by IN."
        ),
    ] = None,
    task: Annotated[str, typer.Option(help="A task, or a file (.json, .yaml) with a list of operators.")] = "photo",
    seed: Annotated[int, typer.Option(help="With the file's name in the folder, decides the noise.")] = 0,
    option: TaskOptions = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Allow OUT to be the file IN itself.")] = False,
    file_format: FormatOption = None,
    quality: QualityOption = None,
    depth: DepthOption = None,
    listed: ListOption = None,
    null: NullOption = False,
    again: AgainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Degrade an image file, every image of a folder, or those of a list, as the training data of a task are degraded.

    A file's result depends on the seed and its own name only, not on the
    other files. It is clipped and rounded to the samples of the file; a
    .jpg adds its own losses. sr2, sr4 and sr8 make a small picture, what
    inpaint removes is transparent (and the file .png where it was .jpg).

    Prints the path of the result. Of many files, those that cannot be
    read or are no images are named and left out, and the exit status is
    1. A run over many files that was stopped goes on when the same
    command is given once more, without --again.
    """

    from serpent_ir.restoration import Degrader

    degrader = Degrader(task, seed, **parse_options(option))

    def engine() -> Engine:
        from serpent_ir.restoration.one import Each

        return Engine(
            Each(degrader.degrade_picture),
            lambda plan, show, options: degrader.degrade_plan(plan, show, options, again),
        )

    for_many = ("--again",) if again else ()
    request = Request(source, target, listed, null, overwrite, file_format, quality, depth, as_json, for_many=for_many)
    process(request, engine, "degraded", alpha=degrader.operator.channels == 4)
