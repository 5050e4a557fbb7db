"""`serpent data prepare`: a collection of photographs into shards to train on."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from serpent_ir.cli import standard_output
from serpent_ir.cli.pictures import progress_bar, say, say_ignored
from serpent_ir.files import printable


class FileFormat(str, Enum):
    png = "png"
    webp = "webp"
    jpg = "jpg"


class SourceLayout(str, Enum):
    auto = "auto"
    folder = "folder"
    ffhq = "ffhq"
    shards = "shards"


class SourceSplit(str, Enum):
    all = "all"
    train = "train"
    val = "val"


def prepare(
    source: Annotated[str, typer.Argument(help="A folder of photographs, or shards (.tar).")],
    out: Annotated[Path, typer.Argument(help="Folder for the shards.")],
    size: Annotated[
        int | None, typer.Option(min=1, help="Scale down to this shorter side in pixels (antialiased bicubic).")
    ] = None,
    square: Annotated[bool, typer.Option("--square", help="Cut the largest centred square out first.")] = False,
    shard_size: Annotated[int, typer.Option(min=1, help="Photographs a shard.")] = 1000,
    file_format: Annotated[
        FileFormat | None,
        typer.Option(
            "--format", help="Write all in this format; without it, what needs no change stays as it is, else PNG."
        ),
    ] = None,
    layout: Annotated[SourceLayout, typer.Option(help="How the photographs lie in SOURCE.")] = SourceLayout.auto,
    split: Annotated[SourceSplit, typer.Option(help="Which part of FFHQ.")] = SourceSplit.all,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first N photographs only.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; without it, one for each processor. 0: this one.")
    ] = None,
) -> None:
    """Check photographs by decoding them, scale them if asked, and write WebDataset shards to train on.

    The shards are the same, byte for byte, for any number of processes. Stopped, the same command goes on with the
    shards that are missing. report.json in OUT names what could not be read and why.

    Prints the path of the shards as a recipe takes it. Exit status: 0, or 1 when some files were left out.
    """
    from serpent_ir.data import PhotographSource, Preparation, prepare_shards
    from serpent_ir.text_file import write_json

    photographs = PhotographSource(source, layout=layout.value, split=split.value)
    preparation = Preparation(size, square, file_format.value if file_format else None, shard_size)
    with progress_bar() as progress:
        bar = progress.add_task("photographs", total=None)
        report = prepare_shards(
            photographs,
            out,
            preparation,
            workers,
            limit,
            lambda done, total: progress.update(bar, completed=done, total=total),
        )
    write_json(
        {
            "images": report.images,
            "shards": report.shards,
            "left_out": report.left_out,
            "problems": report.problems,
            "ignored": report.others,
        },
        out / "report.json",
    )
    kept = f", {report.kept} of them there already" if report.kept else ""
    count = len(report.shards)
    say(f"{report.images} photographs in {count} shard{'s' * (count > 1)}{kept}; {len(report.left_out)} left out")
    for left_out in report.left_out:
        name, reason = left_out["name"], left_out["reason"]
        say(f"  {reason if name in reason else f'{name}: {reason}'}")
    for problem in report.problems:
        say(f"  {problem}")
    say_ignored(report.others)
    standard_output.write_line(printable(out / shard_notation(count)))
    if not report.complete:
        raise typer.Exit(1)


def shard_notation(count: int) -> str:
    """The names of `count` shards in brace notation."""
    return "shard-000000.tar" if count == 1 else f"shard-{{000000..{count - 1:06d}}}.tar"
