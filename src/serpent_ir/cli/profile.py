"""`serpent profile`: what models cost, in theory and on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serpent_ir.cli import standard_output
from serpent_ir.cli.pictures import say
from serpent_ir.files import printable

if TYPE_CHECKING:
    from serpent_ir.efficiency.cell import Cell
    from serpent_ir.efficiency.record import Result

GIBIBYTE = 2**30
WIDTH_OF_A_FILE = 200  # columns, enough that nothing is folded


def profile(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Names (see `serpent models`), names with overrides such as serpent-b:directions=1:depths_up=[2,2,3],"
            " or groups: paper, ablation.",
            show_default="paper",
        ),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="256, or 512x768 (height x width); may be repeated.", show_default="256"),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="inference or training (a step); may be repeated.", show_default="inference"),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="float32, bfloat16 or float16 (autocast); may be repeated.", show_default="float32"),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="cpu, cuda, cuda:1, mps; may be repeated.", show_default="the best there is"),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Images in a pass; may be repeated.", show_default="1")
    ] = None,
    count_only: Annotated[
        bool,
        typer.Option("--count-only", help="Parameters and GMAC alone, nothing is run; --out may be another machine's."),
    ] = False,
    out: Annotated[Path, typer.Option(help="The file that is written, continued, or grown.")] = Path("profile.json"),
    figures: Annotated[Path | None, typer.Option(help="Draw all that the file holds into this folder.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch on the CPU.", show_default="as torch decides")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time passes for so long, three at least.")] = 5.0,
    runs: Annotated[int, typer.Option(min=1, help="Time so many passes at most.")] = 30,
    time_limit: Annotated[float, typer.Option(min=0, help="Seconds for a cell, 0 for no limit.")] = 600.0,
    memory_limit: Annotated[
        float | None,
        typer.Option(
            help="GiB for model and pass, on Linux and with CUDA.",
            show_default="90 % of what is free; all on an accelerator",
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the file holds and start over.")] = False,
) -> None:
    """Measure parameters, GMAC, time and peak memory of models at every combination of the options.

    Each combination runs in a process of its own and is written to the file when it is done. Ctrl-C stops; the same
    command continues. One that does not fit in memory or in the time limit is recorded as such, and larger sizes of it
    are not tried. Exit status: 0, or 1 when a combination failed for another reason, or 2 on an error.
    """
    import math
    from datetime import timedelta

    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from serpent_ir.efficiency.cell import Cell, Settings, Status, parse_size
    from serpent_ir.efficiency.groups import expand
    from serpent_ir.efficiency.profiler import run_profile
    from serpent_ir.efficiency.table import cell_text, report, result_line
    from serpent_ir.errors import RangeError
    from serpent_ir.ops.backends import choose
    from serpent_ir.restoration.device import resolve_device

    if figures is not None:
        from serpent_ir.efficiency.figures import draw
    if memory_limit is not None and not 0 < memory_limit < math.inf:
        raise RangeError(f"--memory-limit {memory_limit:g} GiB", "more than 0, and finite")
    devices = device or [str(resolve_device(None))]
    for name in [] if count_only else devices:
        choice = choose(resolve_device(name))
        if choice.backend != "native":
            say(f"scans run on the {choice.backend} backend on {name}: {choice.reason}")
    combinations = [
        Cell(of_model, height, width, of_batch, of_mode, of_precision, of_device)
        for of_model in expand(models or ["paper"])
        for of_mode in mode or ["inference"]
        for of_precision in precision or ["float32"]
        for of_device in devices
        for of_batch in batch or [1]
        for height, width in map(parse_size, size or ["256"])
    ]
    cells = list(dict.fromkeys(combinations))
    settings = Settings(
        threads=threads or torch.get_num_threads(),
        seconds=seconds,
        runs=runs,
        memory_limit=None if memory_limit is None else math.ceil(memory_limit * GIBIBYTE),
        time_limit=time_limit or None,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("counting", total=len(cells), left="")

        def show_start(cell: Cell, index: int, total: int, left: float | None) -> None:
            text = "? left" if left is None else f"{timedelta(seconds=round(left))} left"
            progress.update(bar, description=cell_text(cell), completed=len(cells) - total + index, left=text)

        def show_result(result: Result) -> None:
            if not count_only:
                progress.console.print(printable(result_line(result)), markup=False, highlight=False, soft_wrap=True)

        content = run_profile(
            cells, out, settings, count_only=count_only, fresh=fresh, on_start=show_start, on_result=show_result
        )
        progress.update(bar, description="done", completed=len(cells), left="")

    results = [content.results[cell] for cell in cells]
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_A_FILE)
    for part in report(content.machine, results):
        console.print(part)
    standard_output.write_line("")
    standard_output.write_line(f"all values: {printable(out)}")
    if figures is not None:
        for path in draw(content.as_json(), figures):
            standard_output.write_line(f"figure:     {printable(path)}")
    failures = [result for result in results if result.status == Status.FAILED]
    if failures:
        say(f"{len(failures)} of {len(results)} failed; the same command tries them again")
        raise typer.Exit(1)
