"""serpent restore: blurred (noisy, small, ...) image files in, restored ones out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from serpent_ir.cli.options import (
    AgainOption,
    DepthOption,
    FormatOption,
    JsonOption,
    ListOption,
    MemoryOption,
    NullOption,
    QualityOption,
    parse_memory,
)
from serpent_ir.cli.pictures import Engine, Request, process, say_stages


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
            " to <stem of OUT>-fidelity.png.",
        ),
    ] = False,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    memory: MemoryOption = None,
    way: Annotated[
        str | None,
        typer.Option(
            help="How a large image goes through the model: whole, bands, disk or tiles.",
            show_default="the first that fits into memory",
        ),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=1, help="Height and width of tiles.", show_default="as memory allows")
    ] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="Pixels that tiles share.", show_default="128")] = None,
    report: Annotated[
        bool,
        typer.Option("--report", help="Say how each image went through the model, and how far that is from one piece."),
    ] = False,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Who restores many files: this machine, or a Ray cluster, where IN and OUT may be URLs."),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(help="Of the cluster.", show_default="RAY_ADDRESS, else one begun on this machine"),
    ] = None,
) -> None:
    """Restore an image file, every image of a folder, or those of a list.

    Format, bit depth, colour profile, EXIF and transparency stay as in
    the input; for a single file, the suffix of OUT decides the format.

    Weights for sr2, sr4 or sr8 enlarge the image 2, 4 or 8 times. Those
    for inpaint fill what is transparent.

    Prints the path of the result. Of many files, those that cannot be
    read or are no images are named and left out, and the exit status is
    1. A run over many files, or over one that is larger than memory,
    goes on after any stop when the same command is given once more,
    without --again.

    With --engine ray, IN is a folder or its URL, such as s3://bucket/in,
    and OUT another one; paths are those that all machines of the cluster
    see.
    """
    on_cluster = engine == "ray"
    if on_cluster and (check or batch is not None):
        raise typer.BadParameter("--check and --batch are for --engine local")
    if ray_address is not None and not on_cluster:
        raise typer.BadParameter("--ray-address is for --engine ray")

    def load() -> Engine:
        from serpent_ir.restoration import Fidelity, Restorer
        from serpent_ir.restoration.fidelity_files import check_file
        from serpent_ir.restoration.restorer import RestorerTransform

        arguments: dict[str, Any] = {
            "backend": backend,
            "ensemble": ensemble,
            "strength": strength,
            "precision": precision,
            "memory": parse_memory(memory),
            "way": way,
            "tile": tile,
            "overlap": overlap,
            "report": report,
        }
        restorer = Restorer(task, model, "cpu" if on_cluster else device, **arguments)
        if on_cluster:
            from serpent_ir.cli.cluster import cluster_engine
            from serpent_ir.restoration.portable import portable_restorer

            portable = portable_restorer(task, model, **arguments)
            return cluster_engine(restorer, portable, device, workers, again, ray_address)

        def checked(source: Path, result: Path, map_path: Path) -> Fidelity:
            return check_file(restorer.degradation, source, result, map_path)

        return Engine(
            RestorerTransform(restorer, say_stages()),
            lambda plan, show, options: restorer.restore_plan(plan, show, options, workers, batch, again),
            checked if check else None,
        )

    given = {"--workers": workers is not None, "--batch": batch is not None, "--again": again}
    for_many = tuple(name for name, is_given in given.items() if is_given)
    request = Request(
        source, target, listed, null, overwrite, file_format, quality, depth, as_json, check, for_many, on_cluster
    )
    process(request, load, "restored")
