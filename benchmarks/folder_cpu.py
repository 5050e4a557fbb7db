"""Does a folder come through as fast as the model alone?

    python benchmarks/folder_cpu.py --data FOLDER [--images N] [--repeats N]

FOLDER holds photographs; N of them (all), each as often as it takes to come to 200 files, are restored by the
embedded weights for `deblur` (Serpent-B) and `denoise` (a small Serpent-L). The model alone: all pictures decoded
beforehand, one after the other on all threads, and nothing written. The folder: `Restorer.restore_folder` with the
workers that `serpent restore` takes by default, from PNG files to PNG files, its processes' start included; and with
one process. In rounds; ratios of pixels per second.

Writes results/folder_cpu.json. Exit status 1 when a mark is missed: 0.9 of the model's throughput.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import Mark, figures, marks_table, new_table, ratios, refuse_when_the_scan_is_wrong, spread, write_result
from rich.console import Console

from serpent_ir.images import find_images, read_image, write_image
from serpent_ir.restoration import Restorer
from serpent_ir.restoration.batch import sensible_workers
from serpent_ir.restoration.plan import plan_folder

FILES = 200
TASKS = ("deblur", "denoise")


def measured(task: str, folder: Path, repeats: int) -> dict[str, Any]:
    restorer = Restorer(task, device="cpu")
    pictures = [read_image(path) for path in find_images(folder)]
    pixels = sum(picture.height * picture.width for picture in pictures)
    target = folder.with_name("out")
    workers = sensible_workers(plan_folder(folder, target), restorer.device)
    rows: dict[str, list[float]] = {"model": [], "folder": [], "folder, one process": []}
    for number in range(-1, repeats):
        seconds = []
        start = time.perf_counter()
        for picture in pictures if number >= 0 else pictures[:5]:
            restorer(picture.pixels)
        seconds.append(time.perf_counter() - start)
        for processes in (workers, 1) if number >= 0 else ():
            start = time.perf_counter()
            summary = restorer.restore_folder(folder, target, workers=processes, again=True)
            seconds.append(time.perf_counter() - start)
            assert summary.complete and len(summary.done) == len(pictures)
            shutil.rmtree(target)
        if number >= 0:
            for row, value in zip(rows, seconds, strict=True):
                rows[row].append(value)
    return {
        "files": len(pictures),
        "megapixels": pixels / 1e6,
        "workers": workers,
        "seconds": {row: spread(values) for row, values in rows.items()},
        "throughput_beside_model": {
            row: ratios(rows["model"], values) for row, values in rows.items() if row != "model"
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--images", type=int, help="how many of them; without it, all")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    refuse_when_the_scan_is_wrong(("native",))
    chosen = find_images(arguments.data)[: arguments.images]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "in")
        for number in range(FILES):
            write_image(read_image(chosen[number % len(chosen)]), folder / f"{number:03}.png")
        found = {task: measured(task, folder, arguments.repeats) for task in TASKS}
    table = new_table(
        "Seconds, and throughput beside the model alone", "", "workers", "model", "folder", "ratio", "one process"
    )
    for task, result in found.items():
        seconds, beside = result["seconds"], result["throughput_beside_model"]
        table.add_row(
            task,
            str(result["workers"]),
            figures(seconds["model"]),
            figures(seconds["folder"]),
            figures(beside["folder"]),
            figures(beside["folder, one process"]),
        )
    marks = [
        Mark(
            task,
            "throughput beside the model",
            result["throughput_beside_model"]["folder"]["median"],
            0.9,
            at_least=True,
        )
        for task, result in found.items()
    ]
    Console().print(table)
    Console().print(marks_table(marks))
    content = {"question": (__doc__ or "").splitlines()[0], "threads": torch.get_num_threads(), "tasks": found}
    print(f"written: {write_result('folder_cpu', content)}")
    return 0 if all(mark.met for mark in marks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
