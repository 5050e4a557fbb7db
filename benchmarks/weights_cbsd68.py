"""How good are the weights that come along, on CBSD68, for each kind and strength of damage?

    python benchmarks/weights_cbsd68.py --data FOLDER [--only TASK]...

FOLDER holds the 68 colour images, none of which the weights were trained on. PSNR and SSIM of what goes in and what
comes out, with 95 % bootstrap intervals over the images; seed 0, neither clipped nor rounded unless a file format does.
An image that equals the original counts 60 dB. `photo` is measured on one kind of damage at a time, and on none.

Writes results/weights_cbsd68.json; --only keeps the other tasks' results there. Exit status 1 when a mark is missed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESULTS, Mark, marks_table, refuse_when_the_scan_is_wrong
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from serpent_ir import tasks
from serpent_ir.evaluation import Evaluator
from serpent_ir.machine import describe_machine
from serpent_ir.models import list_embedded
from serpent_ir.tasks import Degradation
from serpent_ir.text_file import write_json

NAME = "weights_cbsd68"
SHIPPED = ("photo", "denoise", "deblur", "jpeg", "sr8")
NOTHING = "nothing"
LOWEST_UNDAMAGED = 36.0
LOWEST_DENOISED = 30.3
"""dB at sigma 25, for weights that were trained on a CPU alone."""

ONE_AT_A_TIME: dict[str, list[dict[str, Any]]] = {
    NOTHING: [],
    **{f"Gaussian blur, sigma {s}": [{"operator": "gaussian_blur", "sigma": s, "taps": 25}] for s in (1.0, 2.0, 3.0)},
    **{f"anisotropic blur, sigma {s}": [{"operator": "anisotropic_blur", "sigma": s}] for s in (1.5, 3.0)},
    **{f"defocus, radius {r}": [{"operator": "defocus_blur", "radius": r}] for r in (1.5, 3.0)},
    **{f"motion, length {p}": [{"operator": "motion_blur", "length": p}] for p in (4.0, 8.0)},
    **{f"scaled down and up, factor {f}": [{"operator": "rescale", "factor": f}] for f in (1.5, 2.0, 3.0)},
    **{f"Gaussian noise, sigma {s} of 255": [{"operator": "gaussian_noise", "sigma": s / 255}] for s in (5, 15, 30)},
    **{f"photon noise, sigma {s} of 255": [{"operator": "poisson_noise", "sigma": s / 255}] for s in (5, 15, 30)},
    **{f"JPEG, quality {q}": [{"operator": "jpeg", "quality": q}] for q in (90, 70, 50, 25)},
}


def conditions(task: str) -> Iterator[tuple[str, Degradation]]:
    """What the weights for `task` are measured on."""
    if task == "photo":
        yield "the whole chain", tasks.create("photo")
        for label, operators in ONE_AT_A_TIME.items():
            yield label, tasks.compose(label, operators) if operators else Degradation(NOTHING, {}, ())
    elif task == "denoise":
        for sigma in (15, 25, 50):
            yield f"sigma {sigma}", tasks.create("denoise", sigma=sigma)
    elif task == "jpeg":
        for quality in (10, 20, 40, 80):
            yield f"quality {quality}", tasks.create("jpeg", quality=quality)
    else:
        yield "the task", tasks.create(task)


def marks_of(task: str, found: dict[str, Any]) -> list[Mark]:
    """What the project demands of the weights for `task`; an image that is left as it came is no gain."""
    marks = [
        Mark(task, f"gain, {label}, dB", row["gain"]["interval"]["mean"], 0.0, more=True)
        for label, row in found.items()
        if label != NOTHING
    ]
    if task == "denoise":
        restored = found["sigma 25"]["restored"]["psnr"]["mean"]
        marks.append(Mark(task, "PSNR at sigma 25, dB", restored, LOWEST_DENOISED, at_least=True))
    if task == "photo":
        restored = found[NOTHING]["restored"]["psnr"]["mean"]
        marks.append(Mark(task, "PSNR where nothing was damaged, dB", restored, LOWEST_UNDAMAGED, at_least=True))
    return marks


def measured(task: str, weights: Path, folder: Path, progress: Progress) -> dict[str, Any]:
    """condition -> scores of what goes in and of what comes out, and the difference."""
    found = {}
    for label, degradation in conditions(task):
        evaluator = Evaluator(degradation, {"restored": weights}, device="cpu")
        bar = progress.add_task(f"{task}: {label}", total=None)
        evaluation = evaluator.evaluate(
            folder, on_image=lambda done, total, _, bar=bar: progress.update(bar, completed=done, total=total)
        )
        progress.remove_task(bar)
        if not evaluation.models[0].hashes_known:
            raise SystemExit(f"refused: {weights.name} does not list what it was trained on")
        if evaluation.models[0].trained_on:
            raise SystemExit(f"refused: {weights.name} was trained on {', '.join(evaluation.models[0].trained_on)}")
        whole = evaluation.as_json()
        difference = whole["difference_to_first"]["degraded"]["psnr"]
        found[label] = {
            **whole["mean"],
            "gain": {"interval": negated(difference["interval"]), "images_made_worse": difference["won"]},
        }
    return found


def negated(interval: dict[str, Any]) -> dict[str, Any]:
    """Of restored minus degraded, where the evaluation has degraded minus restored."""
    return {**interval, "mean": -interval["mean"], "low": -interval["high"], "high": -interval["low"]}


def tasks_of(content: dict[str, Any]) -> dict[str, Any]:
    """The tasks of a result file, each with the machine it was measured on; older files name one for all."""
    return {task: {"machine": content.get("machine"), **found} for task, found in content["tasks"].items()}


def table_of(task: str, found: dict[str, Any]) -> Table:
    table = Table(title=f"{task}, CBSD68: mean over the images, with 95 % intervals of the gain")
    for header in ("damage", "PSNR before", "SSIM", "PSNR after", "SSIM", "gain, dB"):
        table.add_column(header, justify="left" if header == "damage" else "right")
    for label, row in found.items():
        before, after, gain = row["degraded"], row["restored"], row["gain"]
        interval = gain["interval"]
        table.add_row(
            label,
            f"{before['psnr']['mean']:.2f}",
            f"{before['ssim']['mean']:.4f}",
            f"{after['psnr']['mean']:.2f}",
            f"{after['ssim']['mean']:.4f}",
            f"{interval['mean']:+.2f} ({interval['low']:+.2f} to {interval['high']:+.2f})",
        )
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the 68 images of CBSD68")
    parser.add_argument("--only", action="append", choices=SHIPPED, help="measure the weights for this task alone")
    arguments = parser.parse_args()

    wanted = arguments.only or SHIPPED
    weights = {task: (model, path) for task, model, path in list_embedded()}
    missing = [task for task in wanted if task not in weights]
    if missing:
        raise SystemExit(f"refused: no weights come along for {', '.join(missing)}")
    refuse_when_the_scan_is_wrong(("native",))
    path = RESULTS / f"{NAME}.json"
    kept = tasks_of(json.loads(path.read_text())) if path.exists() and arguments.only else {}
    result: dict[str, Any] = {"question": (__doc__ or "").splitlines()[0], "tasks": kept}
    marks = []
    with Progress(console=Console(stderr=True)) as progress:
        for task in wanted:
            model, file = weights[task]
            found = measured(task, file, arguments.data, progress)
            machine = describe_machine()
            result["tasks"][task] = {"machine": machine, "model": model, "weights": file.name, "conditions": found}
            Console().print(table_of(task, found))
            marks += marks_of(task, found)
    Console().print(marks_table(marks))
    write_json(result, path)
    print(f"written: {path}")
    return 0 if all(mark.met for mark in marks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
