"""What do large images take, in time and memory, and how far are the ways to restore them from one piece?

    python benchmarks/large_images.py --data FOLDER [--only PART ...] [--size N ...] [--scratch FOLDER]

FOLDER holds photographs. Part "seams": photographs of 2048 x 2048 pixels (one enlarged, and a mosaic of many),
degraded by the task, through the embedded weights in one piece, in bands, and in tiles: of the default size, and as
large as go into the memory that bands were seen to take. The largest difference from one piece, the share of the
pixels within 1 of 255, and the peak of memory beside what the process held before.

Parts "serpent-b" and "serpent-l": `serpent restore` from file to file on mosaics of --size (512, 2048, 8192 and
20000) pixels squared, TIFF without compression, with `--memory 900M` (of the largest); Serpent-B with the weights for
deblur, Serpent-L untrained. Wall-clock and processor seconds, and the peak of the resident set of the whole process.
20000 takes an hour or more, 6 GB of disk in --scratch for Serpent-B and 28 GB for Serpent-L.

Writes results/large_images.json, keeping the parts and sizes that were not measured. Exit status 1 when a mark is
missed: 0.999 of the pixels within 1/255 in bands, 1.5 GB at 20000.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyvips
import torch
from common import RESULTS, Mark, marks_table, new_table, refuse_when_the_scan_is_wrong, three_digits, write_result
from rich.console import Console
from torch import Tensor

from serpent_ir import tasks
from serpent_ir.efficiency import memory
from serpent_ir.images import find_images
from serpent_ir.machine import describe_machine, seconds_of_others
from serpent_ir.models import create_model, save_model
from serpent_ir.python_process import command_of
from serpent_ir.restoration import Restorer
from serpent_ir.restoration.evaluation import BYTES_OF_RESULT

NAME = "large_images"
SEAMS = "seams"
MODELS = ("serpent-b", "serpent-l")
SIZES = (512, 2048, 8192, 20000)
TASKS = ("deblur", "denoise", "photo")
SIDE = 2048
LEVEL = 1 / 255
SHARE_FOR_BANDS = 0.6
"""Of what one piece was seen to take: bands have to do with it."""
BUDGET = 900_000_000


def mosaic(paths: list[Path], side: int, piece: int) -> pyvips.Image:
    """`side` x `side` pixels of photographs, each enlarged to cover `piece` x `piece`; 8-bit sRGB."""
    across = -(-side // piece)
    pieces = []
    for number in range(across**2):
        image = (
            pyvips.Image.new_from_file(os.fspath(paths[number % len(paths)])).colourspace("srgb").extract_band(0, n=3)
        )
        image = image.crop(0, 0, *[min(image.width, image.height)] * 2)
        pieces.append(image.resize((piece + 1) / image.width, kernel="lanczos3").crop(0, 0, piece, piece))
    return (
        pyvips.Image.arrayjoin(pieces, across=across).crop(0, 0, side, side).cast("uchar").copy(interpretation="srgb")
    )


def as_tensor(image: pyvips.Image) -> Tensor:
    return torch.from_numpy(image.numpy()).permute(2, 0, 1).float() / 255


# -- seams ---------------------------------------------------------------------------------------------------------


def seams(paths: list[Path]) -> dict[str, Any]:
    images = {"one photograph": as_tensor(mosaic(paths, SIDE, SIDE)), "mosaic": as_tensor(mosaic(paths, SIDE, 512))}
    found: dict[str, Any] = {}
    for task in TASKS:
        degrade = tasks.create(task, **({"sigma": 25} if task == "denoise" else {}))
        for name, clean in images.items():
            damaged = degrade(clean[None], torch.Generator().manual_seed(0))[0]
            found[f"{task}, {name}"] = one_image(task, damaged)
    return found


def one_image(task: str, image: Tensor) -> dict[str, Any]:
    whole, result = passed(Restorer(task, device="cpu", way="whole"), image)
    budget = int(whole["peak_bytes"] * SHARE_FOR_BANDS) + BYTES_OF_RESULT * SIDE**2
    bands, in_bands = passed(Restorer(task, device="cpu", way="bands", memory=budget), image)
    ways = {"whole": whole, "bands": {**bands, **differences(in_bands, result)}}
    equal = Restorer(task, device="cpu").planner
    tile = max(size for size in range(256, SIDE, 64) if equal._estimate(size, size) <= bands["peak_bytes"])
    for name, size in (("tiles, default", 2048 * 3 // 4), ("tiles, memory of bands", tile)):
        found, in_tiles = passed(Restorer(task, device="cpu", way="tiles", tile=size), image)
        ways[name] = {"tile": size, **found, **differences(in_tiles, result)}
    return ways


def passed(restorer: Restorer, image: Tensor) -> tuple[dict[str, float], Tensor]:
    """Seconds and the peak of memory of a restoration, and its result."""
    memory.give_back_what_is_freed()
    before = memory.resident()
    memory.reset_peak()
    start = time.perf_counter()
    result = restorer(image)
    return {"seconds": time.perf_counter() - start, "peak_bytes": memory.peak() - before}, result


def differences(result: Tensor, whole: Tensor) -> dict[str, float]:
    largest = (result - whole).abs().amax(dim=0)
    return {"largest": largest.max().item(), "within": (largest <= LEVEL).double().mean().item()}


# -- sizes ---------------------------------------------------------------------------------------------------------


def size_of(model: str, side: int, paths: list[Path], scratch: Path) -> dict[str, Any]:
    """`serpent restore` on one image, in a process of its own."""
    source, target = scratch / "source.tif", scratch / "result.tif"
    mosaic(paths, side, min(side, 2000)).tiffsave(os.fspath(source))
    command = [*command_of("serpent_ir.cli.main"), "restore", os.fspath(source), os.fspath(target), "--device", "cpu"]
    if model == "serpent-l":
        weights = scratch / "serpent-l.safetensors"
        torch.manual_seed(0)
        save_model(create_model("serpent-l"), weights, task="photo")
        command += ["--model", os.fspath(weights)]
    else:
        command += ["--task", "deblur"]
    budget = side == max(SIZES)
    if budget:
        command += ["--memory", str(BUDGET)]
    start, others = time.perf_counter(), seconds_of_others()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    elapsed, now = time.perf_counter() - start, seconds_of_others()
    if status:
        raise SystemExit(f"serpent restore ended with {os.waitstatus_to_exitcode(status)}")
    source.unlink()
    target.unlink()
    return {
        "seconds": elapsed,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_resident_bytes": usage.ru_maxrss * 1024,
        "memory_asked_for": BUDGET if budget else None,
        "seconds_of_others": None if now is None or others is None else now - others,
        "machine": describe_machine(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--only", action="append", choices=(SEAMS, *MODELS), help="measure this part; may be repeated")
    parser.add_argument("--size", action="append", type=int, choices=SIZES, help="measure this size; may be repeated")
    parser.add_argument("--scratch", type=Path, help="folder for the images; without it, the system's temporary folder")
    arguments = parser.parse_args()
    refuse_when_the_scan_is_wrong(("native",))
    paths = find_images(arguments.data)
    path = RESULTS / f"{NAME}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found: dict[str, Any] = {part: before.get(part, {}) for part in (SEAMS, *MODELS)}
    question = (__doc__ or "").splitlines()[0]
    for part in arguments.only or (SEAMS, *MODELS):
        if part == SEAMS:
            found[SEAMS] = seams(paths)
        else:
            for side in arguments.size or SIZES:
                with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
                    found[part][str(side)] = size_of(part, side, paths, Path(scratch))
                print(part, side, found[part][str(side)], file=sys.stderr)
                write_result(NAME, {"question": question, **found})
        write_result(NAME, {"question": question, **found})
    marks = show(found)
    return 0 if all(mark.met for mark in marks) else 1


def show(found: dict[str, Any]) -> list[Mark]:
    marks = []
    table = new_table(f"{SIDE} x {SIDE}: beside one piece", "", "way", "largest / 255", "within 1", "MB", "s")
    for name, ways in found[SEAMS].items():
        for way, values in ways.items():
            figures = (
                (three_digits(255 * values["largest"]), f"{values['within']:.3%}") if "largest" in values else ("", "")
            )
            seconds = three_digits(values["seconds"])
            table.add_row(name, way, *figures, three_digits(values["peak_bytes"] / 1e6), seconds)
        marks.append(Mark(name, "pixels within 1/255, bands", ways["bands"]["within"], 0.999, at_least=True))
    sizes = new_table("serpent restore, file to file", "", "pixels", "s", "processor s", "peak resident, GB")
    for model in MODELS:
        for side, values in found[model].items():
            numbers = values["seconds"], values["processor_seconds"], values["peak_resident_bytes"] / 1e9
            sizes.add_row(model, f"{side} x {side}", *map(three_digits, numbers))
            if int(side) == max(SIZES):
                marks.append(Mark(model, f"GB at {side} x {side}", values["peak_resident_bytes"] / 1e9, 1.5))
    for shown in (table, sizes, marks_table(marks)):
        Console().print(shown)
    return marks


if __name__ == "__main__":
    raise SystemExit(main())
