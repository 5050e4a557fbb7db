"""`serpent evaluate`: how well a model undoes a task on a folder of clean photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serpent_ir.cli.options import TaskOptions, parse_options
from serpent_ir.cli.pictures import say, say_ignored
from serpent_ir.files import printable

if TYPE_CHECKING:
    from rich.table import Table

    from serpent_ir.evaluation import Evaluation


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of clean photographs, searched with its subfolders.")],
    task: Annotated[str, typer.Option(help="What is done to the photographs before the model undoes it.")] = "deblur",
    model: Annotated[
        str, typer.Option(help="Name of a model with embedded weights, or a weights file (.safetensors, .pth).")
    ] = "serpent-b",
    option: TaskOptions = None,
    seed: Annotated[int, typer.Option(help="Seed of the degradation; each image's own is derived from its name.")] = 0,
    quantized: Annotated[
        bool, typer.Option("--quantized", help="Clip degraded images and round them to 8 bits, as a file would.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first N images only.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results [default: evaluation/<task>-<model>-<folder>].")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps, ... [default: the best there is].")] = None,
    backend: Annotated[str | None, typer.Option(help="Backend of the scan; see `serpent doctor`.")] = None,
) -> None:
    """Degrade clean photographs, restore them, and print PSNR and SSIM before and after.

    Writes evaluation.json (all values, model, machine, versions) and panel.png (degraded | restored | clean for the
    smallest, the median and the largest gain). Exit status: 0, or 1 when some files were skipped, or 2 on an error.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from serpent_ir.errors import FileWriteError
    from serpent_ir.evaluation import Evaluator, FailedImage, ImageScore, draw_panel
    from serpent_ir.images import write_image
    from serpent_ir.json_file import write_json

    options = parse_options(option)
    evaluator = Evaluator(task, model, options=options, seed=seed, quantized=quantized, device=device, backend=backend)
    out = out or default_folder(task, model, folder, quantized)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"folder {out} cannot be created ({error.strerror})") from error

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{task}, {Path(model).stem}", total=None)

        def show(done: int, total: int, result: ImageScore | FailedImage) -> None:
            progress.update(bar, completed=done, total=total)
            if isinstance(result, FailedImage):
                line = f"skipped {printable(result.name)}: {printable(result.reason)}"
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        evaluation = evaluator.evaluate(folder, limit, show)

    Console().print(score_table(evaluation))
    write_json(evaluation.as_json(), out / "evaluation.json")
    title = f"{task}, {Path(model).stem}: {summary(evaluation)}"
    panel = draw_panel(title, ("degraded", "restored", "clean"), evaluator.panel_rows(evaluation, folder))
    write_image(panel, out / "panel.png")
    typer.echo(f"all values: {printable(out / 'evaluation.json')}")
    typer.echo(f"pictures:   {printable(out / 'panel.png')}")
    if evaluation.failed:
        say(f"{len(evaluation.failed)} of {len(evaluation.failed) + len(evaluation.images)} images skipped")
    say_ignored(evaluation.ignored)
    if not evaluation.complete:
        raise typer.Exit(1)


def default_folder(task: str, model: str, folder: Path, quantized: bool) -> Path:
    """evaluation/<task>-<model>-<folder>, with -quantized behind it when that holds."""
    parts = [task, Path(model).stem, folder.resolve().name, *(["quantized"] if quantized else [])]
    return Path("evaluation") / "-".join(parts)


def summary(evaluation: Evaluation) -> str:
    """The mean scores in one line."""
    before, after = evaluation.mean_input, evaluation.mean_output
    scores = f"{before.psnr:.2f} → {after.psnr:.2f} dB, SSIM {before.ssim:.3f} → {after.ssim:.3f}"
    return f"mean of {len(evaluation.images)} images {scores}"


def score_table(evaluation: Evaluation) -> Table:
    """One row per image and the mean below; PSNR in dB."""
    from rich.table import Table
    from rich.text import Text

    kind = "clipped, 8 bits" if evaluation.quantized else "not clipped, not rounded"
    table = Table(title=f"{evaluation.task}, seed {evaluation.seed}, input {kind}", show_footer=True)
    before, after = evaluation.mean_input, evaluation.mean_output
    table.add_column("image", footer=f"mean of {len(evaluation.images)}", overflow="fold")
    for header, value in (
        ("input PSNR", f"{before.psnr:.2f}"),
        ("SSIM", f"{before.ssim:.4f}"),
        ("output PSNR", f"{after.psnr:.2f}"),
        ("SSIM", f"{after.ssim:.4f}"),
        ("gain dB", f"{after.psnr - before.psnr:+.2f}"),
    ):
        table.add_column(header, footer=value, justify="right", no_wrap=True)
    for image in evaluation.images:
        table.add_row(
            Text(printable(image.name)),
            f"{image.input.psnr:.2f}",
            f"{image.input.ssim:.4f}",
            f"{image.output.psnr:.2f}",
            f"{image.output.ssim:.4f}",
            f"{image.gain:+.2f}",
        )
    return table
