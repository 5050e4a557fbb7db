"""What does the mean over eight turns and flips (`--ensemble`) gain on CBSD68, and what does it cost?

    python benchmarks/ensemble_cbsd68.py --data FOLDER [--images N]

FOLDER holds the 68 colour images. PSNR of the embedded weights with and without it, for `denoise` of sigma 25 and
`deblur`, neither clipped nor rounded, seed 0, on the CPU; seconds of one image after the other. --images takes N of
them, evenly spread over the sorted names.

Writes results/ensemble_cbsd68.json. Exit status 1 when a mark is missed: it must gain something in the mean.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from common import Mark, marks_table, mean_and_error, new_table, ratios, refuse_when_the_scan_is_wrong, write_result
from rich.console import Console
from rich.progress import track
from torch import Tensor

from serpent_ir.images import find_images, read_image
from serpent_ir.metrics import capped_psnr
from serpent_ir.restoration import Degrader, Restorer

OPTIONS: dict[str, dict[str, float]] = {"denoise": {"sigma": 25.0}, "deblur": {}}
ROWS = ("plain", "ensemble")


def measured(task: str, paths: list[Path]) -> dict[str, Any]:
    """PSNR and seconds of each row on each image, and the gains."""
    degrader = Degrader(task, 0, **OPTIONS[task])
    restorers = {row: Restorer(task, device="cpu", ensemble=row == "ensemble") for row in ROWS}
    scores: dict[str, list[float]] = {row: [] for row in ROWS}
    seconds: dict[str, list[float]] = {row: [] for row in ROWS}
    restorers["plain"](torch.rand(3, 128, 128))
    for path in track(paths, task, console=Console(stderr=True)):
        picture = read_image(path)
        damaged = degrader.damage(picture, path.name)
        for row, restorer in restorers.items():
            start = time.perf_counter()
            restored: Tensor = restorer(damaged)
            seconds[row].append(time.perf_counter() - start)
            scores[row].append(float(capped_psnr(restored[None], picture.pixels[None])))
    gains = [ours - plain for ours, plain in zip(scores["ensemble"], scores["plain"], strict=True)]
    return {
        "options": OPTIONS[task],
        "psnr": {row: fmean(values) for row, values in scores.items()},
        "gain": mean_and_error(gains),
        "seconds": {row: fmean(values) for row, values in seconds.items()},
        "times_as_long": ratios(seconds["ensemble"], seconds["plain"]),
        "images": [
            {"name": path.name, **{row: scores[row][number] for row in ROWS}} for number, path in enumerate(paths)
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the 68 images of CBSD68")
    parser.add_argument("--images", type=int, help="how many of them; without it, all")
    arguments = parser.parse_args()

    refuse_when_the_scan_is_wrong(("native",))
    paths = find_images(arguments.data)
    number = min(arguments.images or len(paths), len(paths))
    chosen = [paths[len(paths) * place // number] for place in range(number)]
    found = {task: measured(task, chosen) for task in OPTIONS}
    table = new_table(f"CBSD68, {number} images; gain ± standard error", "", "plain", "ensemble", "gain, dB", "times")
    for task, result in found.items():
        gain, psnr = result["gain"], result["psnr"]
        table.add_row(
            task,
            f"{psnr['plain']:.2f} dB, {result['seconds']['plain']:.2f} s",
            f"{psnr['ensemble']:.2f} dB, {result['seconds']['ensemble']:.2f} s",
            f"{gain['mean']:+.3f} ± {gain['standard_error']:.3f} ({gain['smallest']:+.3f} to {gain['largest']:+.3f})",
            f"{result['times_as_long']['median']:.1f}",
        )
    marks = [Mark(task, "mean gain, dB", result["gain"]["mean"], 0.0, more=True) for task, result in found.items()]
    Console().print(table)
    Console().print(marks_table(marks))
    content = {"question": (__doc__ or "").splitlines()[0], "seed": 0, "threads": torch.get_num_threads()}
    print(f"written: {write_result('ensemble_cbsd68', {**content, 'tasks': found})}")
    return 0 if all(mark.met for mark in marks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
