"""serpent restore: blurred (noisy, small, ...) image files in, restored ones out."""

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
)
from serpent_ir.cli.pictures import Engine, Request, process


def restore(
    source: Annotated[
        str | None,
        typer.Argument(metavar="IN", help="An image file, a folder (with all its folders), or - for standard input."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="OUT", help="File or folder to write, or - for standard output; without it, <name>-restored by IN."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="What went wrong with the images: a task, or a file (.json, .yaml) with a list of operators;"
            " `serpent models` lists the weights there are.",
            show_default="what a weights file was trained for, else photo",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A model with embedded weights, or a weights file (.safetensors, .pth).",
            show_default="the first with weights for the task",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; without it, the fastest one.")] = None,
    backend: Annotated[str | None, typer.Option(help="Backend of the scan; see `serpent doctor`.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Allow OUT to be the file IN itself.")] = False,
    file_format: FormatOption = None,
    quality: QualityOption = None,
    depth: DepthOption = None,
    listed: ListOption = None,
    null: NullOption = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes for many files on a CPU.", show_default="by cores, sizes and memory"),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Images of equal size restored at once.", show_default="1 on a CPU, else 8"),
    ] = None,
    again: AgainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Restore an image file, every image of a folder, or those of a list.

    Format, bit depth, colour profile, EXIF and transparency stay as in
    the input; for a single file, the suffix of OUT decides the format.

    Weights for sr2, sr4 or sr8 enlarge the image 2, 4 or 8 times. Those
    for inpaint fill what is transparent.

    Prints the path of the result. Of many files, those that cannot be
    read or are no images are named and left out, and the exit status is
    1. A run over many files that was stopped, or killed at any moment,
    goes on when the same command is given once more.
    """

    def load() -> Engine:
        from serpent_ir.restoration import Restorer

        restorer = Restorer(task, model, device, backend)
        return Engine(
            restorer.restore_pictures,
            lambda plan, show, options: restorer.restore_plan(plan, show, options, workers, batch, again),
        )

    process(Request(source, target, listed, null, overwrite, file_format, quality, depth, as_json), load, "restored")
