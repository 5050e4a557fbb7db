"""Does `--check` tell right results from smooth, noisy and wrong ones, on CBSD68?

    python benchmarks/fidelity_cbsd68.py --data FOLDER [--images N]

FOLDER holds the 68 colour images. Each is degraded and rounded to 8 bits, seed 0, and the check judges, rounded too:
the truth; what the embedded weights make of the input; that blurred by 2 pixels; the input itself; what the weights for
another task make of it. --images takes N of them, evenly spread over the sorted names.

Writes results/fidelity_cbsd68.json. Exit status 1 when a mark is missed: the truth must always explain its input, what
the right weights make nearly always, and what those for `deblur` make of an image that was not blurred never.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, median
from typing import Any

from common import Mark, marks_table, new_table, refuse_when_the_scan_is_wrong, write_result
from rich.console import Console
from rich.progress import track
from torch import Tensor

from serpent_ir import tasks
from serpent_ir.images import Picture, find_images, read_image
from serpent_ir.restoration import Degrader, Fidelity, Restorer, check_fidelity
from serpent_ir.tasks import GaussianBlur, enlarge, quantize

OPTIONS: dict[str, dict[str, float]] = {"denoise": {"sigma": 25.0}, "deblur": {}, "sr8": {}, "jpeg": {"quality": 20}}
OTHER = {"denoise": "deblur", "deblur": "denoise", "jpeg": "deblur"}
KINDS = ("truth", "restored", "smooth", "input", "other weights")
LEAST_RESTORED = 0.9
"""Share of what the right weights make that the check must let pass."""


def results(task: str, picture: Picture, image: Tensor, restorers: dict[str, Restorer]) -> Iterator[tuple[str, Tensor]]:
    restored = restorers[task](image)
    yield "truth", picture.pixels
    yield "restored", quantize(restored)
    yield "smooth", quantize(GaussianBlur(17, 2.0)(restored[None])[0])
    size = (picture.height, picture.width)
    yield "input", quantize(enlarge(image[None], tasks.create(task).enlarge, size)[0])
    if task in OTHER:
        yield "other weights", quantize(restorers[OTHER[task]](image))


def measured(task: str, paths: list[Path], restorers: dict[str, Restorer]) -> dict[str, Any]:
    degrader, declared = Degrader(task, 0, **OPTIONS[task]), tasks.create(task)
    found: dict[str, list[Fidelity]] = {kind: [] for kind in KINDS}
    for path in track(paths, task, console=Console(stderr=True)):
        picture = read_image(path)
        image = quantize(degrader.damage(picture, path.name))
        for kind, result in results(task, picture, image, restorers):
            cropped = result[:, : picture.height, : picture.width]
            found[kind].append(check_fidelity(cropped, image, declared))
    return {kind: summary(checks) for kind, checks in found.items() if checks}


def summary(checks: list[Fidelity]) -> dict[str, float]:
    return {
        "explains": fmean(bool(check.explains) for check in checks),
        "ratio": median(check.ratio or 0.0 for check in checks),
        "correlation": median(check.correlation for check in checks),
        "above": median(check.above or 0.0 for check in checks),
        "below": median(check.below or 0.0 for check in checks),
    }


def marks_of(task: str, found: dict[str, dict[str, float]]) -> list[Mark]:
    marks = [
        Mark(task, "truth that explains its input", found["truth"]["explains"], 1.0, at_least=True),
        Mark(task, "restored that explains it", found["restored"]["explains"], LEAST_RESTORED, at_least=True),
    ]
    if OTHER.get(task) == "deblur":
        marks.append(Mark(task, "deblurred all the same that explains it", found["other weights"]["explains"], 0.0))
    return marks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the 68 images of CBSD68")
    parser.add_argument("--images", type=int, help="how many of them; without it, all")
    arguments = parser.parse_args()

    refuse_when_the_scan_is_wrong(("native",))
    paths = find_images(arguments.data)
    number = min(arguments.images or len(paths), len(paths))
    chosen = [paths[len(paths) * place // number] for place in range(number)]
    restorers = {task: Restorer(task, device="cpu") for task in OPTIONS}
    found = {task: measured(task, chosen, restorers) for task in OPTIONS}
    table = new_table(f"CBSD68, {number} images; medians", "task", "result", "explains", "ratio", "correlation")
    for task, rows in found.items():
        for kind, row in rows.items():
            share, ratio, correlation = f"{row['explains']:.0%}", f"{row['ratio']:.2f}", f"{row['correlation']:+.3f}"
            table.add_row(task, kind, share, ratio, correlation)
    marks = [mark for task, rows in found.items() for mark in marks_of(task, rows)]
    Console().print(table)
    Console().print(marks_table(marks))
    content = {"question": (__doc__ or "").splitlines()[0], "seed": 0, "images": [path.name for path in chosen]}
    print(f"written: {write_result('fidelity_cbsd68', {**content, 'tasks': found})}")
    return 0 if all(mark.met for mark in marks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
