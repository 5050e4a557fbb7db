"""What `restore` and `degrade` share: a file or folder through a function of a picture, progress, a summary.

Standard output carries the path of the result, byte for byte, and nothing else; everything for people goes to standard
error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from serpent_ir.errors import SerpentError
from serpent_ir.files import printable

if TYPE_CHECKING:
    from serpent_ir.images import FileOutcome, Transform
    from serpent_ir.restoration import Fidelity

    Check = Callable[[Path, Path, Path], Fidelity]
    """From an input, the result and where its map is to go."""


def process(
    source: Path,
    target: Path | None,
    make_transform: Callable[[], Transform],
    word: str,
    overwrite: bool = False,
    alpha: bool = False,
    check: Check | None = None,
) -> None:
    """Send the file or folder `source` through the transform and print where the result lies.

    target: None writes next to the source, as `<name>-<word>`. make_transform: called once, after the paths were found
    to be usable, since it may take long. alpha: results have an alpha channel: a suffix that nobody asked for and whose
    format has none becomes .png. check: called for each result that was written, to say how well it explains the input.
    Raises SerpentError when nothing can be done, typer.Exit(1) when some files of a folder failed, could not be checked
    or are no images.
    """
    from serpent_ir.images.folder import ALPHA_SUFFIXES, WRITABLE_SUFFIXES

    suffixes = ALPHA_SUFFIXES if alpha else WRITABLE_SUFFIXES
    if source.is_dir():
        process_folder(source, target, make_transform, word, suffixes, check)
    else:
        process_file(source, target, make_transform, word, overwrite, suffixes, check)


def process_file(
    source: Path,
    target: Path | None,
    make_transform: Callable[[], Transform],
    word: str,
    overwrite: bool,
    suffixes: tuple[str, ...],
    check: Check | None,
) -> None:
    from serpent_ir.images import plan_file, transform_file

    path = plan_file(source, target, word, overwrite, suffixes)
    maps = {} if check is None else planned_maps([(source, path)])
    transform_file(source, path, make_transform())
    say(f"{source} was {word}; the result is")
    typer.echo(os.fsencode(path))
    if check is not None:
        fidelity = check(source, path, maps[path])
        for line in (fidelity.verdict, *fidelity.lines, f"map: {maps[path]}"):
            say(line)


def process_folder(
    source: Path,
    target: Path | None,
    make_transform: Callable[[], Transform],
    word: str,
    suffixes: tuple[str, ...],
    check: Check | None,
) -> None:
    from serpent_ir.images import plan_folder, transform_folder

    if target is None:
        folder = source.resolve()
        target = folder.with_name(f"{folder.name}-{word}")
    plan = plan_folder(source, target, suffixes)
    maps = {} if check is None else planned_maps(plan.pairs)
    unchecked: list[Path] = []
    transform = make_transform()
    with progress_bar() as progress:
        bar = progress.add_task("images", total=len(plan.pairs))

        def show(outcome: FileOutcome) -> None:
            progress.advance(bar)
            line = ""
            if outcome.reason is not None:
                line = f"skipped {describe(outcome)}"
            elif check is not None:
                try:
                    line = f"{outcome.target}: {check(outcome.source, outcome.target, maps[outcome.target]).summary}"
                except SerpentError as error:
                    unchecked.append(outcome.target)
                    line = f"not checked {outcome.target}: {error}"
            if line:
                progress.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

        try:
            summary = transform_folder(plan, transform, show)
        except KeyboardInterrupt:
            progress.stop()
            say(f"{progress.tasks[bar].completed:.0f} of {len(plan.pairs)} images were done; what is written is whole")
            raise

    done, failed = len(summary.done), len(summary.failed)
    say(f"{done} of {len(plan.pairs)} images {word}, {failed} failed, in {summary.seconds:.1f} s")
    for outcome in summary.failed:
        say(f"  {describe(outcome)}")
    if unchecked:
        say(f"{len(unchecked)} could not be checked: {', '.join(map(str, unchecked))}")
    say_ignored([str(path) for path in summary.ignored])
    typer.echo(os.fsencode(target))
    if unchecked or not summary.complete:
        raise typer.Exit(1)


def planned_maps(pairs: list[tuple[Path, Path]]) -> dict[Path, Path]:
    from serpent_ir.restoration.fidelity_files import plan_maps

    return plan_maps(pairs)


def progress_bar() -> Progress:
    """A bar on standard error: what, how many of how many, and the time left."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))


def describe(outcome: FileOutcome) -> str:
    """The file that failed and why, its name once."""
    source, reason = str(outcome.source), outcome.reason or ""
    return reason if source in reason else f"{source}: {reason}"


def say(text: str) -> None:
    """A line for people, on standard error."""
    typer.echo(printable(text), err=True)


def say_ignored(names: Sequence[str], shown: int = 5) -> None:
    """How many files were left alone because their names are not those of images, and the first of them."""
    if names:
        more = ", ..." if len(names) > shown else ""
        say(f"{len(names)} ignored, no images by their suffix: {', '.join(names[:shown])}{more}")
