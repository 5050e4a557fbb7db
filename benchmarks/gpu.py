"""How fast is the scan on a GPU, against Mamba's kernel and what the device can do; what do whole models take?

    python benchmarks/gpu.py [--only PART ...] [--seconds 450] [--repeats 11] [--output FILE]
    python benchmarks/gpu.py --tune [--seconds 1800]
    TRITON_INTERPRET=1 python benchmarks/gpu.py --device cpu --quick

First, kernels are compiled by several processes at once; what a first call took (`first_seconds`) leaves that out.
Then come the parts, in this order:

- correctness: errors of output and gradients, small maps against the float64 loops, Serpent-H's maps against the
  portable backend in float64; equal bits of two runs; a map of 4096 x 4096. It refuses to go on when anything is wrong.
- scan: forward, and forward with backward, at Serpent-H's scales, against Mamba's CUDA kernel where it is installed,
  the portable backend, and two floors: bytes over the rate of copying, exponentials over 16 a clock and multiprocessor.
- model: training steps and inference of whole models, time and peak memory; eager, as a CUDA graph, and compiled.

Times are by events on the device, after a warm-up, with nothing in the cache; a second figure, `queued`, leaves out
what launching costs. What is compared is measured in rounds. Whatever would begin when the time (--seconds, of which
each part has a share) is nearly up is recorded as left out, as is what memory does not suffice for.

--tune measures the backend's constants one at a time instead, for someone with another GPU, and writes
results/gpu_tuning.json. --quick tries all lines at tiny sizes and judges no mark; with --device cpu, Triton's
interpreter runs the kernels. Writes results/gpu.json after every part; with --only, parts that did not run are kept.
Exit status 1 when something is wrong, fails, or misses its mark.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gpu_compile
import gpu_correctness
import gpu_models
import gpu_scan
import gpu_tuning
import torch
from common import RESULTS, Mark, figures, marks_table, new_table, three_digits, write_result
from gpu_device import Record, Session, describe_device
from rich.console import Console
from rich.table import Table

from serpent_ir.machine import describe_machine, package_version
from serpent_ir.ops import triton

SHARES = {"correctness": 0.35, "scan": 0.4, "model": 0.25}
"""Of the time that is left when kernels are compiled, for each part; what one leaves goes to the next."""
INTERPRETED = {"STEPS": 2, "SMALLEST_CHUNK": 4}  # the interpreter's time goes with the steps of a chunk


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 ...; cpu for a dry run")
    parser.add_argument("--only", nargs="+", choices=SHARES, metavar="PART", help="parts to run, by default all")
    parser.add_argument("--seconds", type=float, default=450.0, help="nothing begins when these are nearly up")
    parser.add_argument("--repeats", type=int, default=11, help="rounds of what takes less than 50 ms")
    parser.add_argument("--output", type=Path, help="the file to write instead of results/gpu.json")
    parser.add_argument("--tune", action="store_true", help="try the backend's constants instead")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--compile", nargs=2, type=int, help=argparse.SUPPRESS)  # a process of gpu_compile.py
    arguments = parser.parse_args()
    device = usable(arguments.device)
    session = Session(device, 1 if arguments.quick else arguments.repeats, arguments.quick, arguments.seconds)
    small_chunks = arguments.quick and device.type == "cpu"
    with gpu_tuning.constants(INTERPRETED) if small_chunks else nullcontext():
        if arguments.compile:
            return gpu_compile.work(session, *arguments.compile)
        return tuned(session, arguments.output) if arguments.tune else measured(session, arguments)


def usable(name: str) -> torch.device:
    """The device; exits where the kernels cannot run on it."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here. A dry run: TRITON_INTERPRET=1 ... --device cpu --quick")
    problem = triton.why_unavailable(device)
    if problem is not None:
        hint = " (TRITON_INTERPRET=1 interprets them)" if device.type == "cpu" else ""
        raise SystemExit(f"the kernels cannot run on {device}: {problem}{hint}")
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


def measured(session: Session, arguments: argparse.Namespace) -> int:
    """The parts that were asked for, written one by one; the exit status."""
    chosen = [name for name in SHARES if name in (arguments.only or SHARES)]
    output: Path | None = arguments.output or (RESULTS / "gpu.json" if not session.quick else None)
    kept: Record = {}
    if arguments.only and output is not None and output.exists():
        kept = json.loads(output.read_text())["parts"]
    ahead = gpu_compile.compile_ahead(session, __file__)
    device = describe_device(session)
    about = {"machine": described(), "device": device, "compiled_ahead": ahead, "repeats": session.repeats}
    shares = sum(SHARES[name] for name in chosen)
    done, begun = 0.0, session.budget.used
    if "correctness" not in chosen:
        refuse_when_wrong(gpu_correctness.on_small_maps(session), session)
    for name in chosen:
        done += SHARES[name]
        session.budget.until = begun + (session.budget.seconds - begun) * done / shares
        before = session.budget.used
        if name == "correctness":
            record = gpu_correctness.correctness(session)
        elif name == "scan":
            record = gpu_scan.scan(session, device)
        else:
            record = gpu_models.model(session)
        kept[name] = {**about, "took": session.budget.used - before, **record}
        write(kept, output, session.quick)
        console().print(*TABLES[name](kept[name]))
        if name == "correctness":
            refuse_when_wrong(record, session)
    marks = [mark for mark in all_marks(kept) if mark.part in chosen]
    if not session.quick:
        console().print(marks_table(marks))
    missed = [] if session.quick else [f"missed: {mark.part}: {mark.what}" for mark in marks if not mark.met]
    for line in (*missed, *(f"failed: {failure}" for failure in session.failures)):
        print(line)
    print(f"{session.budget.used:.0f} s" + (f", written: {output}" if output else ""))
    return 1 if missed or session.failures else 0


def tuned(session: Session, output: Path | None) -> int:
    refuse_when_wrong(gpu_correctness.on_small_maps(session), session)
    record = {"device": describe_device(session), "versions": described()["versions"], **gpu_tuning.tune(session)}
    if output is not None or not session.quick:
        question = "Which constants of the Triton backend are the fastest on this GPU?"
        print(f"written: {write_result('gpu_tuning', {'question': question, **record}, output)}")
    console().print(*gpu_tuning.tables(record))
    return 1 if session.failures else 0


def console() -> Console:
    """Wide enough for the tables where the output goes to a file."""
    return Console(width=None if sys.stdout.isatty() else 160)


def described() -> Record:
    """The machine, with the versions that matter here too."""
    machine = describe_machine()
    return {**machine, "versions": {**machine["versions"], "triton": package_version("triton")}}


def refuse_when_wrong(record: Record, session: Session) -> None:
    """Exit when something is wrong in a record of `gpu_correctness`, or failed."""
    reasons = [*gpu_correctness.refusals(record), *session.failures]
    if reasons:
        raise SystemExit("\n".join(f"refused: {reason}" for reason in reasons))


def all_marks(kept: dict[str, Record]) -> list[Mark]:
    found: list[Mark] = []
    for name, marks in (("scan", gpu_scan.marks), ("model", gpu_models.marks)):
        found += marks(kept[name]) if name in kept else ()
    return found


def write(kept: dict[str, Record], output: Path | None, quick: bool) -> None:
    """The result file: all parts, in their order, and the marks."""
    if output is None:
        return
    marks = [] if quick else [{**asdict(mark), "met": mark.met} for mark in all_marks(kept)]
    parts = {name: kept[name] for name in SHARES if name in kept}
    write_result("gpu", {"question": (__doc__ or "").splitlines()[0], "parts": parts, "marks": marks}, output)


def of_map(cell: Record) -> str:
    size, channels, states, _ = cell["map"].values()
    shape = f"{size}²" if isinstance(size, int) else " x ".join(map(str, size))
    return f"{shape} D{channels} N{states}"


def correctness_tables(record: Record) -> Iterator[Any]:
    table = new_table("Correctness", "", "batch", "", "output", "worst gradient", "equal bits")
    for cell in (*record["small"], *record["real"], *record["strips"]):
        name = of_map(cell) if "map" in cell else f"rows {cell['rows']} of a large map, D{cell['channels']}"
        row = [name, str(cell.get("batch", 1)), cell["dtype"]]
        if "left_out" in cell:
            table.add_row(*row, cell["left_out"])
            continue
        worst, where = max((error, name) for name, error in cell["errors"].items() if name != "y")
        bits = {True: "yes", False: "no", None: ""}[cell.get("bits_equal")]
        table.add_row(*row, f"{cell['errors']['y']:.1e}", f"{worst:.1e} {where.removeprefix('gradient of ')}", bits)
    yield table
    yield "A large map: " + ", ".join(f"{name} {value}" for name, value in record["large"].items())


def scan_tables(record: Record) -> Iterator[Any]:
    name, reason = record["rival"]["name"], record["rival"]["reason"]
    yield f"Rival: {name}" if name else f"No rival: {reason}"
    for kind in gpu_scan.KINDS:
        title = f"Scan, {kind.replace('_', ' ')}: ms; times the floor; other systems over ours; *: without launching"
        headers = ("image", "map", "batch", "", "ms", "ms *", "/ floor", "mamba", "mamba *", "with copies", "portable")
        table = new_table(title, *headers)
        for cell in record["cells"]:
            row = [f"{cell['image']}²", of_map(cell), str(cell["batch"]), cell["dtype"]]
            if "left_out" in cell:
                table.add_row(*row, cell["left_out"][:40])
                continue
            queued = cell.get("queued_seconds", {}).get(gpu_scan.OURS, {}).get(kind)
            rivals = [
                cell.get(ratios, {}).get(f"{system}, {kind}")
                for ratios, system in (
                    ("over_triton", gpu_scan.COPIES_MADE),
                    ("queued_over_triton", gpu_scan.COPIES_MADE),
                    ("over_triton", gpu_scan.MAKING_COPIES),
                    ("over_triton", "portable"),
                )
            ]
            table.add_row(
                *row,
                figures(cell["seconds"][gpu_scan.OURS][kind], 1e3),
                three_digits(1e3 * queued["median"]) if queued else "",
                three_digits(cell["over_floor"][kind]),
                *(three_digits(ratio["median"]) if ratio else "" for ratio in rivals),
            )
        yield table


def model_tables(record: Record) -> Iterator[Table]:
    table = new_table(f"Models, scan on {record['scan_backend']}", "", "", "ms", "peak, GB", "first call, s")
    groups = {f"training {record['size']}²": record["training"]}
    groups |= {f"inference {size}²": group for size, group in record["inference"].items()}
    for group, found in groups.items():
        for name, peak in found["peak"].items():
            seconds = found["seconds"].get(name)
            first = three_digits(found["first_seconds"][name])
            table.add_row(group, name, figures(seconds, 1e3) if seconds else "", f"{peak / 1e9:.3f}", first)
        for name, reason in found["left_out"].items():
            table.add_row(group, name, reason)
    for way in ("cuda graph", "torch.compile"):
        found = record[way]
        if "left_out" in found:
            table.add_row(f"inference {record['size']}²", way, found["left_out"])
            continue
        for name, seconds in found["seconds"].items():
            preparing = three_digits(found["preparing_seconds"]) if name == way else ""
            peak = f"{found['working'][name] / 1e9:.3f} working"
            table.add_row(f"{way} against eager", name, figures(seconds, 1e3), peak, preparing)
    yield table


TABLES = {"correctness": correctness_tables, "scan": scan_tables, "model": model_tables}


if __name__ == "__main__":
    raise SystemExit(main())
