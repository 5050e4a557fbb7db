"""What `restore` and `degrade` share: images from somewhere to somewhere, progress, a summary.

Standard output carries the path of the result, byte for byte, or the result itself, or lines of JSON, and nothing else;
everything for people goes to standard error.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from serpent_ir.cli import standard_output
from serpent_ir.errors import DataError, ImageWriteError, SerpentError
from serpent_ir.files import printable
from serpent_ir.urls import shown

if TYPE_CHECKING:
    from serpent_ir.images import OutputOptions
    from serpent_ir.restoration import Fidelity
    from serpent_ir.restoration.one import Transform
    from serpent_ir.restoration.outcome import BatchSummary, FileOutcome
    from serpent_ir.restoration.plan import Job, Naming, Plan

BITS = {"8": 8, "16": 16, "float": 32}

STANDARD = "-"
"""In place of a path: standard input, standard output."""


@dataclass(frozen=True)
class Request:
    """What was asked: where images come from and go to, and in which form.

    source: a file, a folder, or -; None where `listed` is the file (or -) with paths, one a line, or with `null` after
    each a zero byte. target: None writes next to the source. quality, depth: as written. check: results are to be
    checked against their sources. for_many: options that were given and mean something for many files alone.
    on_cluster: source and target are folders, which may be behind URLs.
    """

    source: str | None
    target: str | None
    listed: str | None = None
    null: bool = False
    overwrite: bool = False
    file_format: str | None = None
    quality: int | None = None
    depth: str | None = None
    as_json: bool = False
    check: bool = False
    for_many: tuple[str, ...] = ()
    on_cluster: bool = False

    def options(self) -> OutputOptions:
        from serpent_ir.images import OutputOptions

        suffix = None if self.file_format is None else f".{self.file_format}"
        depth = None if self.depth is None else BITS[self.depth]
        return OutputOptions(suffix=suffix, quality=self.quality, bit_depth=depth)


@dataclass(frozen=True)
class Engine:
    """What is done with images: with a few, and with the many of a plan, where outcomes are shown on the way.

    check: says of a source, its result and where the map is to go how well the result explains the source.
    """

    transform: Transform
    run: Callable[[Plan[Any], Callable[[FileOutcome[Any]], None], OutputOptions], BatchSummary[Any]]
    check: Callable[[Path, Path, Path], Fidelity] | None = None


def process(request: Request, make_engine: Callable[[], Engine], word: str, alpha: bool = False) -> None:
    """Do what was asked, and print where the result lies.

    make_engine: called once, after the paths were found to be usable, since it may take long. word: what happens to an
    image, as a participle. alpha: results have an alpha channel: a suffix that nobody asked for and whose format has
    none becomes .png. Raises SerpentError when nothing can be done, typer.Exit(1) when some of many files failed or are
    no images.
    """
    from serpent_ir.images.folder import ALPHA_SUFFIXES, WRITABLE_SUFFIXES
    from serpent_ir.restoration.plan import Naming, plan_folder, plan_list

    standard_output.check_open()
    naming = Naming(request.options().suffix, ALPHA_SUFFIXES if alpha else WRITABLE_SUFFIXES)
    source, target = request.source, None if request.target is None else Path(request.target)
    url = next((place for place in (source, request.target) if place is not None and "://" in place), None)
    if url is not None and (not request.on_cluster or request.listed is not None):
        raise typer.BadParameter(f"{shown(url)} is a URL; those are for --engine ray, without --list")
    if request.listed is not None:
        if source is None or target is not None:
            raise typer.BadParameter("with --list there is one argument, the folder for the results")
        if source == STANDARD:
            raise typer.BadParameter("the results of a list go into a folder, not to standard output")
        plan = plan_list(read_list(request.listed, request.null), Path(source), naming)
        process_many(request, plan, make_engine, word)
    elif source is None:
        raise typer.BadParameter("which image? Name a file or a folder.")
    elif request.null:
        raise typer.BadParameter("--null is for the paths of --list")
    elif request.on_cluster:
        process_many(request, plan_for_cluster(source, request.target, naming), make_engine, word)
    elif STANDARD not in (source, request.target) and os.path.isdir(source):
        target = beside(Path(source), word) if target is None else target
        process_many(request, plan_folder(Path(source), target, naming), make_engine, word)
    elif request.for_many:
        raise typer.BadParameter(f"{', '.join(request.for_many)}: for many files, a folder or --list")
    elif STANDARD in (source, request.target):
        process_stream(request, make_engine, naming)
    else:
        if target is not None and request.target is not None and request.target.endswith(os.sep):
            target /= naming.result(Path(Path(source).name))  # in a folder, which may have to be made
        process_file(request, Path(source), target, make_engine, word, naming)


def beside(folder: Path, word: str) -> Path:
    """Where the results of a folder go that nobody named another place for: next to it, or to the link to it."""
    place = Path(os.path.abspath(folder))
    if not place.name:
        raise ImageWriteError(f"{folder} is the root of the file system, and has nothing beside it", "OUT to be named")
    return place.with_name(f"{place.name}-{word}")


def process_file(
    request: Request, source: Path, target: Path | None, make_engine: Callable[[], Engine], word: str, naming: Naming
) -> None:
    from serpent_ir.restoration.one import transform_file
    from serpent_ir.restoration.outcome import BatchSummary, FileOutcome
    from serpent_ir.restoration.plan import Job, plan_file, target_of

    start = time.perf_counter()
    try:
        job = Job(source, plan_file(source, target, word, request.overwrite, naming), source.name)
        maps = planned_maps(request, [job])
        engine = make_engine()
        outcome = transform_file(job, engine.transform, request.options())
    except SerpentError as error:
        if request.as_json:
            job = Job(source, target_of(source, target, word, naming), source.name)
            failed = FileOutcome(job, "failed", reason=str(error))
            print_json(failed.as_dict())
            print_json(summary_line(BatchSummary((failed,), (), time.perf_counter() - start), job.target))
        raise
    say(f"{source} was {word}{'' if request.as_json else '; the result is'}")
    say_notes(outcome)
    if not request.as_json:
        standard_output.write_line(job.target)
    line, unchecked = outcome.as_dict(), None
    if engine.check is not None and maps:
        try:
            fidelity = engine.check(source, job.target, maps[job.target])
        except SerpentError as error:
            line["fidelity"], unchecked = {"error": str(error)}, error
        else:
            line["fidelity"] = fidelity_fields(fidelity, maps[job.target])
            for words in (fidelity.verdict, *fidelity.lines, f"map: {maps[job.target]}"):
                say(words)
    if request.as_json:
        print_json(line)
        summary = BatchSummary((outcome,), (), outcome.seconds.total)
        print_json(summary_line(summary, job.target, int(unchecked is not None) if request.check else None))
    if unchecked is not None:
        raise unchecked


def process_stream(request: Request, make_engine: Callable[[], Engine], naming: Naming) -> None:
    """One image from standard input or to standard output, or both; without a target, to standard output."""
    from serpent_ir.images import read_content, suffix_of_content
    from serpent_ir.images.write import write_result
    from serpent_ir.restoration.one import transform_content
    from serpent_ir.restoration.plan import check_target

    if request.check:
        raise typer.BadParameter("--check needs files: its map has no place in a pipe")
    to_standard = request.target in (None, STANDARD)
    if request.as_json:
        raise typer.BadParameter("--json is for files, not for standard input or output")
    if to_standard and sys.stdout.isatty():
        raise typer.BadParameter("standard output is a terminal; send it to a file with > or name one")
    assert request.source is not None
    from_standard = request.source == STANDARD
    name = "standard input" if from_standard else request.source
    target = None if to_standard else Path(str(request.target))
    if target is not None:
        check_target(target, naming)
        if from_standard and not request.overwrite and is_standard_input(target):
            raise ImageWriteError(f"{target} is the input itself", "another place for the output")
    content = standard_input() if from_standard else read_content(Path(request.source))
    result, notes = transform_content(
        content,
        name if from_standard else Path(name).name,  # as of a file that is written to one: it decides what is random
        naming.result(Path(f"result{suffix_of_content(content)}")).suffix if target is None else target.suffix,
        make_engine().transform,
        request.options(),
        name,
    )
    for note in notes:
        say(f"{name}: {note}")
    if target is None:
        standard_output.write(result)
    else:
        write_result(result, target)
        standard_output.write_line(target)


def standard_input() -> bytes:
    """All that comes through it. Raises DataError when it is closed."""
    if sys.stdin is None:
        raise DataError("standard input is closed", "one that is open, such as a file or a pipe")
    return sys.stdin.buffer.read()


def is_standard_input(path: Path) -> bool:
    """Whether standard input is read from the file `path`."""
    try:
        return os.path.samestat(os.fstat(sys.stdin.fileno()), path.stat())
    except (OSError, AttributeError):  # there is no such file; it is closed, or no file
        return False


def plan_for_cluster(source: str, target: str | None, naming: Naming) -> Plan[Any]:
    from serpent_ir.restoration.remote_files import place_of, plan_anywhere

    folder = place_of(source)
    if isinstance(folder, Path) and not folder.is_dir():
        raise typer.BadParameter(f"{source} is no folder; a cluster is for folders, URLs of folders, and --list")
    if target is None:
        raise typer.BadParameter("with --engine ray, name the folder or the URL for the results")
    return plan_anywhere(folder, place_of(target), naming)


def process_many(request: Request, plan: Plan[Any], make_engine: Callable[[], Engine], word: str) -> None:
    if request.overwrite:
        raise typer.BadParameter("--overwrite is for a single file; results of many go to a folder of their own")
    maps = planned_maps(request, plan.jobs)
    engine, unchecked = make_engine(), list[Path]()

    def checked(outcome: FileOutcome) -> tuple[list[str], dict[str, Any]]:
        """What there is to say when the result was checked; one that was there already is, if it has no newer map."""
        target = outcome.job.target
        if engine.check is None or not maps:
            return [], {}
        if outcome.status == "failed" or (outcome.status == "skipped" and is_newer(maps[target], target)):
            return [], {"fidelity": None}
        try:
            fidelity = engine.check(outcome.job.source, target, maps[target])
        except SerpentError as error:
            unchecked.append(target)
            return [f"not checked {target}: {error}"], {"fidelity": {"error": str(error)}}
        return [f"{target}: {fidelity.summary}"], {"fidelity": fidelity_fields(fidelity, maps[target])}

    with progress_bar() as progress:
        bar = progress.add_task("images", total=len(plan.jobs))
        finished = 0

        def show(outcome: FileOutcome[Any]) -> None:
            nonlocal finished
            finished += outcome.status != "failed"
            progress.advance(bar)
            lines, fields = checked(outcome)
            first = [f"failed {describe(outcome)}"] if outcome.status == "failed" else notes_of(outcome)
            for line in (*first, *lines):
                progress.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
            if request.as_json:
                print_json({**outcome.as_dict(), **fields})

        try:
            summary = engine.run(plan, show, request.options())
        except KeyboardInterrupt:
            progress.stop()
            say(
                f"{finished} of {len(plan.jobs)} images were done; what is written is whole,"
                f" and the same command{' without --again' * ('--again' in request.for_many)} goes on with the rest"
            )
            raise

    say(summary_text(summary, word))
    for outcome in summary.failed:
        say(f"  {describe(outcome)}")
    if unchecked:
        say(f"{len(unchecked)} could not be checked: {', '.join(map(str, unchecked))}")
    say_ignored([str(path) for path in summary.ignored])
    if request.as_json:
        print_json(summary_line(summary, plan.target, len(unchecked) if request.check else None))
    else:
        standard_output.write_line(str(plan.target))
    if unchecked or not summary.complete:
        raise typer.Exit(1)


def is_newer(path: Path, other: Path) -> bool:
    """Whether `path` is a file that was written after `other`, as far as their times tell."""
    return path.is_file() and path.stat().st_mtime_ns >= other.stat().st_mtime_ns


def planned_maps(request: Request, jobs: Sequence[Job]) -> dict[Path, Path]:
    """Where the map of each result goes, if there are to be any."""
    from serpent_ir.restoration.fidelity_files import plan_maps

    return plan_maps([(job.source, job.target) for job in jobs]) if request.check else {}


def read_list(name: str, null: bool) -> list[Path]:
    """The paths in a file, or on standard input, one a line, or each with a zero byte behind it."""
    try:
        content = standard_input() if name == STANDARD else Path(name).read_bytes()
    except OSError as error:
        raise DataError(
            f"the list {name} cannot be read ({error.strerror})", "a file with a path on each line"
        ) from error
    content = content if null else content.removeprefix(codecs.BOM_UTF8)
    if null:
        lines = content.split(b"\0")
    elif b"\0" in content:
        raise DataError(f"the list {name} holds zero bytes", "a path on each line", "Say --null if they divide paths.")
    else:
        lines = [line.removesuffix(b"\r") for line in content.split(b"\n")]
    return [Path(os.fsdecode(line)) for line in lines if line]


def summary_text(summary: BatchSummary[Any], word: str) -> str:
    parts = [f"{len(summary.done)} of {len(summary.outcomes)} images {word}"]
    if summary.skipped:
        parts.append(f"{len(summary.skipped)} were already")
    parts.append(f"{len(summary.failed)} failed")
    rates = f" ({summary.images_per_second:.2f} images/s, {summary.megapixels_per_second:.2f} megapixels/s)"
    return f"{', '.join(parts)}, in {summary.seconds:.1f} s{rates if summary.done else ''}"


def summary_line(summary: BatchSummary[Any], target: object, unchecked: int | None = None) -> dict[str, Any]:
    """unchecked: how many results could not be checked, None where none was to be."""
    checks = {} if unchecked is None else {"unchecked": unchecked}
    return {"summary": {**summary.as_dict(), **checks, "output": str(target)}}


def fidelity_fields(fidelity: Fidelity, map_path: Path) -> dict[str, Any]:
    """What JSON can hold of a check."""
    known = fidelity.ratio is not None and math.isfinite(fidelity.ratio)
    return {"verdict": fidelity.verdict, "ratio": fidelity.ratio if known else None, "map": str(map_path)}


def print_json(value: dict[str, Any]) -> None:
    """One line on standard output; bytes of a name that are no text become \\udc80 to \\udcff."""
    standard_output.write_line(json.dumps(value))


def progress_bar() -> Progress:
    """A bar on standard error: what, how many of how many, and the time left."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), redirect_stdout=False)


def describe(outcome: FileOutcome[Any]) -> str:
    """The file that failed and why, its name once."""
    source, reason = str(outcome.source), outcome.reason or ""
    return reason if source in reason else f"{source}: {reason}"


def notes_of(outcome: FileOutcome[Any]) -> list[str]:
    return [f"{outcome.source}: {note}" for note in outcome.notes]


def say_notes(outcome: FileOutcome) -> None:
    for line in notes_of(outcome):
        say(line)


def say(text: str) -> None:
    """A line for people, on standard error."""
    typer.echo(printable(text), err=True)


def say_stages() -> Callable[[int, int], None]:
    """Says how far an image is that takes long, at most twenty times."""
    said = -1

    def say_stage(done: int, total: int) -> None:
        nonlocal said
        twentieths = 20 * done // total
        if twentieths > said:
            said = twentieths
            say(f"{done} of {total} ({100 * done // total} %); after a stop, the same command goes on from here")

    return say_stage


def say_ignored(names: Sequence[str], shown: int = 5) -> None:
    """How many files were left alone because their names are not those of images, or they are linked folders, and the
    first of them."""
    if names:
        more = ", ..." if len(names) > shown else ""
        say(f"{len(names)} ignored, no images by their suffix or links to folders: {', '.join(names[:shown])}{more}")
