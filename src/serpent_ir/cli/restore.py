"""serpent restore: blurred (noisy, small, ...) image files in, restored ones out."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serpent_ir.cli.pictures import process

if TYPE_CHECKING:
    from serpent_ir.images import Transform
    from serpent_ir.restoration import Fidelity, Restorer


def restore(
    source: Annotated[Path, typer.Argument(metavar="IN", help="An image file, or a folder (with all its folders).")],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="File or folder to write; without it, <name>-restored next to IN."),
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
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="The mean over 8 turned and flipped images: a little better, 8 times as long."),
    ] = False,
    strength: Annotated[
        float, typer.Option(help="From 0, the input, to 1, the restored image; in between, both are mixed as light.")
    ] = 1.0,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Degrade the result again, say how well it explains the input, and write a map of where it does not"
            " to <OUT>-fidelity.png.",
        ),
    ] = False,
) -> None:
    """Restore an image file, or every image of a folder.

    Format, bit depth, colour profile, EXIF and transparency stay as in
    the input; for a single file, the suffix of OUT decides the format.

    Weights for sr2, sr4 or sr8 enlarge the image 2, 4 or 8 times. Those
    for inpaint fill what is transparent.

    Prints the path of the result. In a folder, files that cannot be read
    or are no images are named and left out, and the exit status is 1.
    """

    @functools.cache
    def restorer() -> Restorer:
        from serpent_ir.restoration import Restorer

        return Restorer(task, model, device, backend, ensemble=ensemble, strength=strength)

    def load() -> Transform:
        return restorer().restore_picture

    def checked(source: Path, result: Path, map_path: Path) -> Fidelity:
        from serpent_ir.restoration.fidelity_files import check_file

        return check_file(restorer().degradation, source, result, map_path)

    process(source, target, load, "restored", overwrite, check=checked if check else None)
