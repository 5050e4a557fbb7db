"""`serpent evaluate`: how well models undo a task on a folder of clean photographs."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serpent_ir.cli import standard_output
from serpent_ir.cli.options import TaskOptions, parse_options
from serpent_ir.cli.pictures import progress_bar, say, say_ignored
from serpent_ir.files import printable

if TYPE_CHECKING:
    from serpent_ir.evaluation import Evaluation, Evaluator, FailedImage, ImageScores
    from serpent_ir.tasks import Degradation


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of clean photographs, searched with its subfolders.")],
    task: Annotated[
        str,
        typer.Option(
            help="What is done to the photographs before the models undo it: a task, or a file (.json, .yaml) with a"
            " list of operators."
        ),
    ] = "photo",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model with embedded weights for the task, one of its embedded weights for another"
            " (deblur-serpent-b), or a weights file (.safetensors, .pth). May be repeated: the others are compared with"
            " the first.",
            show_default="all embedded weights for the task",
        ),
    ] = None,
    option: TaskOptions = None,
    seed: Annotated[int, typer.Option(help="Seed of the degradation; each image's own is derived from its name.")] = 0,
    quantized: Annotated[
        bool, typer.Option("--quantized", help="Clip degraded images and round them to 8 bits, as a file would.")
    ] = False,
    channel: Annotated[str, typer.Option(help="PSNR and SSIM on rgb, or on y (luma), usual for super-resolution.")] = (
        "rgb"
    ),
    border: Annotated[int, typer.Option(min=0, help="Cut off so many pixels at each side before scoring.")] = 0,
    lpips: Annotated[bool, typer.Option("--lpips", help="LPIPS (AlexNet) as well.")] = False,
    lpips_weights: Annotated[
        Path | None,
        typer.Option(
            help="LPIPS, with AlexNet's weights from this file or folder.", show_default="$SERPENT_LPIPS_WEIGHTS"
        ),
    ] = None,
    lpips_download: Annotated[
        bool,
        typer.Option("--lpips-download", help="LPIPS; fetch them from download.pytorch.org (233 MB) if missing."),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first N images only.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="At most so many photographs on the page; an even number.")] = 48,
    per_image: Annotated[bool, typer.Option("--per-image", help="Print the PSNR of every image, too.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results.", show_default="evaluation/<task>-<models>-<folder>-<options>, not in FOLDER"
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="the best there is")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Backend of the scan; see `serpent doctor`.")] = None,
) -> None:
    """Degrade clean photographs, restore them with every model, and compare the scores.

    Prints means with bootstrap intervals and the paired differences to the
    first model, and says what the models were trained on. Writes index.html
    (a page with pictures), table.md, table.tex, images.csv and
    evaluation.json.

    Exit status: 0, or 1 when some files were skipped, or 2 on an error.
    """
    from serpent_ir.errors import FileWriteError
    from serpent_ir.evaluation import Evaluator, FailedImage, Gallery, Scoring, make_folder, weights_for, write_report
    from serpent_ir.images import lies_in
    from serpent_ir.metrics import load_lpips
    from serpent_ir.restoration.device import resolve_device
    from serpent_ir.tasks import list_tasks, load_task

    degradation = load_task(task, **parse_options(option))
    models = model or weights_for(degradation.name)
    if not model and degradation.name not in list_tasks():
        say(f"no weights are for {degradation.name}: evaluated are {', '.join(models)}, blind to what was done")
    gallery = Gallery(pictures)
    wanted = lpips or lpips_weights is not None or lpips_download
    network = load_lpips(lpips_weights, lpips_download, resolve_device(device)) if wanted else None
    evaluator = Evaluator(
        degradation,
        models,
        seed=seed,
        quantized=quantized,
        scoring=Scoring(channel, border, network),
        device=device,
        backend=backend,
    )
    labels = evaluator.labels
    out = out or default_folder(evaluator, folder, limit)
    if lies_in(out, folder):
        remedy = f"Name one with --out, such as {folder.resolve()}-evaluation."
        raise FileWriteError(
            f"{out} lies in the input folder {folder}", "a folder outside of it for the output", remedy
        )
    make_folder(out)

    with progress_bar() as progress:
        bar = progress.add_task(f"{task}, {', '.join(map(printable, labels))}", total=None)

        def show(done: int, total: int, result: ImageScores | FailedImage) -> None:
            progress.update(bar, completed=done, total=total)
            if isinstance(result, FailedImage):
                line = f"skipped {printable(result.name)}: {printable(result.reason)}"
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        evaluation = evaluator.evaluate(folder, limit, show, gallery.add)

    print_evaluation(evaluation, per_image)
    write_report(evaluation, out, gallery)
    standard_output.write_line(f"a page to look at: {printable(out / 'index.html')}")
    standard_output.write_line(
        f"all values: {printable(out / 'evaluation.json')}; tables: table.md, table.tex, images.csv beside it"
    )
    if evaluation.failed:
        say(f"{len(evaluation.failed)} of {len(evaluation.failed) + len(evaluation.images)} images skipped")
    say_ignored(evaluation.ignored)
    if not evaluation.complete:
        raise typer.Exit(1)


def default_folder(evaluator: Evaluator, folder: Path, limit: int | None = None) -> Path:
    """evaluation/<task>-<models>-<folder>, the first three models; behind it what is not as usual, but for the seed.

    For example evaluation/denoise-serpent-b-photographs-sigma-25-quantized-y-border-4. Where the current folder is that
    of the photographs, or in it, `evaluation` is beside that folder.
    """
    from serpent_ir.images import lies_in

    labels, scoring = evaluator.labels, evaluator.scoring
    parts = [evaluator.degrader.operator.name, *labels[:3], *([f"and-{len(labels) - 3}-more"] if labels[3:] else [])]
    parts += [folder.resolve().name, *changed_options(evaluator.degrader.operator)]
    parts += ["quantized"] if evaluator.quantized else []
    parts += [scoring.channel] if scoring.channel != "rgb" else []
    parts += [f"border-{scoring.border}"] if scoring.border else []
    parts += ["lpips"] if scoring.lpips is not None else []
    parts += [f"limit-{limit}"] if limit is not None else []
    above = Path("evaluation")
    if lies_in(above, folder):
        above = folder.resolve().parent / above
    return above / re.sub(r"[/\\]", "-", printable("-".join(parts)))


def changed_options(task: Degradation) -> list[str]:
    """ "sigma-25", "missing-0.1-0.2": the options of a registered task that differ from its defaults.

    Of a task of one's own a digest of its operators, such as "5c0f11d2".
    """
    from serpent_ir.tasks import list_tasks, task_options

    if task.name not in list_tasks():
        return [hashlib.sha256(json.dumps(task.options, sort_keys=True, default=str).encode()).hexdigest()[:8]]
    declared = task_options(task.name)
    changed = {name: task.options[name] for name, option in declared.items() if task.options[name] != option.default}
    return [
        "-".join([name, *(f"{end:g}" for end in (value if isinstance(value, tuple) else (value,)))])
        for name, value in changed.items()
    ]


def print_evaluation(evaluation: Evaluation, per_image: bool) -> None:
    """The tables and their notes on standard output, warnings on standard error."""
    from rich.console import Console

    from serpent_ir.evaluation.notes import score_lines, training_lines, warning_lines
    from serpent_ir.evaluation.table import image_table, rich_table, tables

    console = Console()
    for table in [*([image_table(evaluation)] if per_image else []), *tables(evaluation)]:
        console.print(rich_table(table))
    for line in [*score_lines(evaluation), *training_lines(evaluation)]:
        console.print(line, markup=False, highlight=False)
    for line in warning_lines(evaluation):
        Console(stderr=True).print(line, style="bold red", markup=False, highlight=False)
