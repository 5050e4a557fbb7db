"""How close is Serpent on a CPU to what the machine can do, and how far ahead of the other systems?

    python benchmarks/cpu.py [--threads 2] [--repeats 21] [--only PART ...] [--quick]

Parts, all float32, batch 1 and the native scan unless said otherwise; inputs are random, as at initialisation:

- floors: exponentials and multiplications a second, bytes copied a second.
- scan: the four-direction scan at the four scales of Serpent-H and of Serpent-B on a 256 x 256 image, against
  `torch.exp` of as many numbers as there are states and steps; the backward pass; the pixels as one row or column.
- saved: bytes kept for the backward pass of the scan, over bytes of its inputs.
- models: Serpent, U-Net, Restormer and SwinIR, inference at 256 x 256; a training step on 8 crops of 128 x 128.
- memory: peak of a process that runs Serpent on a 2048 x 2048 image.
- sequences: `selective_scan` against a parallel scan in torch, loops over time, and the portable backend.
- denormals: the scan when its states fade far below the smallest normal number.
- threads: how much faster the scan is on several threads than on one; refused when the bits depend on their number.

What is compared is measured in rounds, one after the other in each; ratios are those of single rounds. As in `serpent
profile`, freed memory stays with the process, and torch asks for huge pages.

Writes results/cpu.json and docs/figures/cpu/scan.png. With --only, the file keeps what it holds of other parts, with
the machine they were measured on. --quick tries all parts at tiny sizes, judges no mark and writes nothing. Exit status
1 when a mark of a part that ran is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cpu_scan
import cpu_systems
import torch
from common import (
    RESULTS,
    Mark,
    Options,
    figures,
    marks_table,
    new_table,
    refuse_when_the_scan_is_wrong,
    three_digits,
    write_result,
)
from cpu_figure import draw
from rich.console import Console, Group, RenderableType
from rich.table import Table

from serpent_ir.efficiency import memory
from serpent_ir.machine import HUGE_PAGES_VARIABLE, describe_machine, seconds_of_others
from serpent_ir.ops.backends import choose

NAME = "cpu"
FIGURES = Path(__file__).parent.parent / "docs" / "figures" / "cpu"

FORWARD_OVER_EXP = (1.6, 1.0, 0.8, 0.55)  # at the scales of Serpent-H
BACKWARD_OVER_FORWARD = 3.0
SAVED_OVER_INPUTS = 1.10
MODEL_RATIOS = {
    "unet-32 / serpent-b": 6.0,
    "unet-128 / serpent-l": 18.0,
    "restormer / serpent-h": 9.0,
    "swinir-b / serpent-h": 35.0,
    "unet-32 training / serpent-b training": 4.0,
}
PEAK_GB = {"serpent-b": 1.2, "serpent-h": 8.0}
LOOP_OVER_NATIVE = 20.0
DENORMAL_OVER_ORDINARY = 1.1
BUSY_ELSEWHERE = 0.05  # beyond that the figures of a part are not to be trusted

Record = dict[str, Any]
"""What a part measured, as in the result file."""


@dataclass(frozen=True)
class Part:
    measure: Callable[[Options], Record]
    table: Callable[[Record], RenderableType]
    marks: Callable[[Record], Iterator[Mark]] = lambda record: iter(())
    timed: bool = True  # its marks are about time


def scan_marks(record: Record) -> Iterator[Mark]:
    for scale, limit in zip(record["serpent-h"], FORWARD_OVER_EXP, strict=True):
        yield Mark("scan", f"forward / exp, {of_map(scale)}", scale["forward_over_exp"]["median"], limit)
        ratio = scale["backward_over_forward"]["median"]
        yield Mark("scan", f"backward / forward, {of_map(scale)}", ratio, BACKWARD_OVER_FORWARD)


def saved_marks(record: Record) -> Iterator[Mark]:
    for scale in record["serpent-h"]:
        yield Mark("saved", f"saved / inputs, {of_map(scale)}", scale["saved_over_inputs"], SAVED_OVER_INPUTS)


def models_marks(record: Record) -> Iterator[Mark]:
    for ratio, limit in MODEL_RATIOS.items():
        yield Mark("models", ratio, record["ratios"][ratio]["median"], limit, at_least=True)


def memory_marks(record: Record) -> Iterator[Mark]:
    for name, limit in PEAK_GB.items():
        yield Mark("memory", f"GB, {name} at {record['size']}²", record[name]["memory"]["peak"] / 1e9, limit)


def sequences_marks(record: Record) -> Iterator[Mark]:
    for length, systems in record["lengths"].items():
        factor = systems["factors"]["loop"]["forward"]
        yield Mark("sequences", f"loop / native, forward, L = {length}", factor, LOOP_OVER_NATIVE, at_least=True)


def denormals_marks(record: Record) -> Iterator[Mark]:
    for what, ratio in record["ratios"].items():
        yield Mark("denormals", what, ratio["median"], DENORMAL_OVER_ORDINARY)


def floors_table(record: Record) -> Table:
    table = new_table("Floors: median (quartiles)", "", "")
    table.add_row("exponentials", f"{figures(record['exponentials_per_second'], 1e-9)} G/s")
    table.add_row("matrix product, multiply-add as two", f"{figures(record['gemm_flops'], 1e-9)} GFLOP/s")
    table.add_row("copy, read and written", f"{figures(record['copied_bytes_per_second'], 1e-9)} GB/s")
    return table


def scan_table(record: Record) -> RenderableType:
    times = new_table(
        "Scan: ns per state and step", "map", "exp", "forward", "backward", "forward / exp", "back / forw."
    )
    for scale in (*record["serpent-h"], *record["serpent-b"]):
        nanoseconds = [scale["nanoseconds"].get(name) for name in ("exp", "forward", "backward")]
        ratios = [scale.get(name) for name in ("forward_over_exp", "backward_over_forward")]
        times.add_row(
            of_map(scale),
            *("" if value is None else f"{value:.3f}" for value in nanoseconds),
            *("" if ratio is None else figures(ratio) for ratio in ratios),
        )
    shapes = new_table("Scan, forward: a square map over the same pixels in one line", "map", "row", "column")
    for scale in record["serpent-h"]:
        shapes.add_row(of_map(scale), figures(scale["square_over_row"]), figures(scale["square_over_column"]))
    return Group(times, shapes)


def saved_table(record: Record) -> Table:
    table = new_table("Saved for the backward pass of the scan", "map", "saved, MB", "inputs, MB", "ratio")
    for scale in record["serpent-h"]:
        megabytes = (f"{scale[name] / 1e6:.2f}" for name in ("saved_bytes", "input_bytes"))
        table.add_row(of_map(scale), *megabytes, f"{scale['saved_over_inputs']:.3f}")
    return table


def models_table(record: Record) -> Table:
    crops = f"{record['training']['batch']} crops of {record['training']['size']}²"
    title = f"Models: inference at {record['size']}², training steps on {crops}; median (quartiles)"
    table = new_table(title, "", "ms, or ratio", "rounds")
    for name, seconds in record["seconds"].items():
        table.add_row(name, figures(seconds, 1e3), str(seconds["repeats"]))
    for name, ratio in record["ratios"].items():
        table.add_row(name, figures(ratio), str(ratio["repeats"]))
    return table


def memory_table(record: Record) -> Table:
    table = new_table(f"Memory at {record['size']}², inference", "", "peak, GB", "before the model, GB", "seconds")
    for name in PEAK_GB:
        held = record[name]["memory"]
        table.add_row(
            name, f"{held['peak'] / 1e9:.3f}", f"{held['baseline'] / 1e9:.3f}", figures(record[name]["seconds"])
        )
    return table


def sequences_table(record: Record) -> Table:
    title = f"Sequences, D = {record['channels']}, N = {record['states']}: ms, median (quartiles); times native"
    table = new_table(title, "L", "", "forward", "times", "forward + backward", "times")
    for length, systems in record["lengths"].items():
        factors = systems["factors"]
        for name in ("native", *factors):
            cells = []
            for kind in ("forward", "forward_and_backward"):
                seconds, factor = systems[name].get(kind), factors.get(name, {}).get(kind)
                cells += [figures(seconds, 1e3) if seconds else "", f"{factor:.1f}" if factor else ""]
            table.add_row(length, name, *cells)
    return table


def denormals_table(record: Record) -> Table:
    table = new_table("Denormal states: time over that of ordinary ones", "", "ratio")
    for what, ratio in record["ratios"].items():
        table.add_row(what, figures(ratio))
    return table


def threads_table(record: Record) -> Table:
    table = new_table(f"1 thread over {record['threads']}: ratio of times", "map", "forward", "backward")
    for scale in record["serpent-h"]:
        table.add_row(of_map(scale), *(figures(scale["one_over_several"][kind]) for kind in ("forward", "backward")))
    return table


def of_map(scale: Record) -> str:
    size, channels, states, _ = scale["map"].values()
    return f"{size}² D{channels} N{states}"


PARTS = {
    "floors": Part(cpu_scan.floors, floors_table),
    "scan": Part(cpu_scan.scan, scan_table, scan_marks),
    "saved": Part(cpu_scan.saved, saved_table, saved_marks, timed=False),
    "models": Part(cpu_systems.models, models_table, models_marks),
    "memory": Part(cpu_systems.memory, memory_table, memory_marks, timed=False),
    "sequences": Part(cpu_systems.sequences, sequences_table, sequences_marks),
    "denormals": Part(cpu_scan.denormals, denormals_table, denormals_marks),
    "threads": Part(cpu_scan.threads, threads_table),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads that torch and the kernels use")
    parser.add_argument("--repeats", type=int, default=21, help="rounds; slow things get fewer, as recorded")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help="parts to run, by default all")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    arguments = parser.parse_args()
    repeats = 2 if arguments.quick else arguments.repeats
    options = Options(arguments.threads, repeats, arguments.quick)
    os.environ.setdefault(HUGE_PAGES_VARIABLE, "1")  # torch reads it when it first takes memory
    torch.set_num_threads(options.threads)
    refuse_when_the_scan_is_wrong(("native", "portable"))
    memory.keep_what_is_freed()

    path = RESULTS / f"{NAME}.json"
    kept: Record = json.loads(path.read_text())["parts"] if arguments.only and path.exists() else {}
    chosen = [name for name in PARTS if name in (arguments.only or PARTS)]
    machine = {"machine": describe_machine(), "scan": choose(torch.device("cpu")).reason, "repeats": repeats}
    for name in chosen:
        kept[name] = {**machine, **watched(PARTS[name], options)}
        Console().print(PARTS[name].table(kept[name]))
        if not options.quick:
            write(kept)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            draw(kept, [], Path(folder))
        return 0

    marks = [mark for mark in all_marks(kept) if mark.part in chosen]
    Console().print(marks_table(marks))
    figure = draw(kept, [asdict(mark) for mark in all_marks(kept)], FIGURES)
    print(f"written: {path}" + (f" and {figure}" if figure else ""))
    missed = [mark for mark in marks if not mark.met]
    for mark in missed:
        print(f"missed: {mark.part}: {mark.what}: {three_digits(mark.value)}")
    return 1 if missed else 0


def watched(part: Part, options: Options) -> Record:
    """What a part measured, and the share of the processors that others had meanwhile (None: not known)."""
    start, before = time.perf_counter(), seconds_of_others()
    record = part.measure(options)
    after, available = seconds_of_others(), (time.perf_counter() - start) * (os.cpu_count() or 1)
    return {"busy_elsewhere": None if before is None or after is None else (after - before) / available, **record}


def all_marks(kept: dict[str, Record]) -> list[Mark]:
    return [mark for name, record in kept.items() for mark in (*disturbance(name, record), *PARTS[name].marks(record))]


def disturbance(part: str, record: Record) -> Iterator[Mark]:
    """Other work distorts every comparison: threads that often wait for each other suffer far more than others."""
    if PARTS[part].timed and record["busy_elsewhere"] is not None:
        yield Mark(part, "share of the processors that others had", record["busy_elsewhere"], BUSY_ELSEWHERE)


def write(kept: dict[str, Record]) -> None:
    """The result file: all parts, in the order of PARTS, and the marks."""
    marks = [{**asdict(mark), "met": mark.met} for mark in all_marks(kept)]
    parts = {name: kept[name] for name in PARTS if name in kept}
    write_result(NAME, {"question": (__doc__ or "").splitlines()[0], "unit": "seconds", "parts": parts, "marks": marks})


if __name__ == "__main__":
    raise SystemExit(main())
