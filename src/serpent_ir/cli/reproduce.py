"""`serpent reproduce`: the paper's tables, and our own, made anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serpent_ir.cli import standard_output
from serpent_ir.cli.pictures import say
from serpent_ir.files import printable

if TYPE_CHECKING:
    from serpent_ir.reproduction.plan import Plan

WIDTH_OF_A_FILE = 200  # columns, enough that nothing is folded


def reproduce(
    context: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="table1, table2, denoise, equal or ablation.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="Photographs to train on; DIR:1.35-2 scales crops down by 1.35 to 2. May be repeated."),
    ] = None,
    val: Annotated[
        list[str] | None,
        typer.Option(help="Photographs to score on; may be repeated.", show_default="FFHQ's, for table1 and table2"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Training time of each row, such as 8m, in place of its recipe's length.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for runs and results.", show_default="runs/TABLE")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="ROW", help="Make this row alone; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Score on so many photographs, evenly spaced.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the degradations that are scored.")] = 0,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="auto")] = None,
) -> None:
    """Train the models of a table one after another, score them on the same degraded photographs, print the table.

    table1 and table2 are the paper's, on FFHQ: --data is its folder (00000.png to 69999.png), or, much faster, shards
    of its images made by `serpent data prepare`. denoise is colour denoising as CDnCNN was trained; equal gives every
    model the same time, and ablation variants of Serpent-B. The last three take any photographs.

    Ctrl-C stops with a checkpoint, and the same command continues. Rows that are done are kept; a row that failed does
    not stop the others, and is tried again. Any field of the recipes can be overridden, as in `serpent train`:
    --workers 2, --devices 8, --precision bf16-mixed. Writes TABLE.json and TABLE.md into the folder OUT.

    Exit status: 0, or 1 when a row failed, 2 on an error, 130 when interrupted.
    """
    import torch
    from rich.console import Console

    from serpent_ir.reproduction.plan import Request, make_plans
    from serpent_ir.reproduction.report import on_terminal, write_report
    from serpent_ir.reproduction.results import RowResult, results_of
    from serpent_ir.reproduction.runner import make_rows
    from serpent_ir.reproduction.tables import choose_rows, find_table

    chosen = find_table(table)
    accelerator = device != "cpu" and torch.cuda.is_available()
    rows = choose_rows(chosen, only or (), accelerator)
    left_out = [] if only else [row.name for row in chosen.rows if row not in rows]
    if left_out:
        say(f"left out on a CPU (--only names them all the same): {', '.join(left_out)}")
    out = out or Path("runs") / table
    arguments = [*context.args, *([] if device is None else ["--device", device])]
    request = Request(data or (), val or (), budget, limit, seed, arguments, only or ())
    plans = make_plans(chosen, rows, request, out)

    def to_show() -> list[RowResult]:
        return [found for found in results_of(chosen, out) if found.plan is not None or found.row in rows]

    def start(plan: Plan) -> None:
        say(f"row {plans.index(plan) + 1} of {len(plans)}: {plan.folder.name}")

    def end(plan: Plan) -> None:
        write_report(chosen, table, request.command(table), to_show(), out)

    try:
        make_rows(plans, start, end)
    except KeyboardInterrupt:
        say("stopped; the same command continues")
        raise
    files = write_report(chosen, table, request.command(table), to_show(), out)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_A_FILE)
    for part in on_terminal(chosen, to_show()):
        console.print(part)
    standard_output.write_line("")
    for file in files:
        standard_output.write_line(printable(file))
    failures = [found for found in results_of(chosen, out) if found.row in rows and not found.is_done]
    if failures:
        say(f"{len(failures)} of {len(rows)} rows are not done; the same command tries again")
        raise typer.Exit(1)
