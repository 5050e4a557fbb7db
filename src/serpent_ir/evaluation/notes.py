"""What a reader of the tables must know: how it was scored, what the models were trained on, and warnings."""

from __future__ import annotations

from serpent_ir.evaluation.results import Evaluation, ModelFacts
from serpent_ir.files import printable
from serpent_ir.metrics import HIGHEST_PSNR

NAMES_SHOWN = 5


def row_name(evaluation: Evaluation, row: str) -> str:
    """The name of a row; of a model that was trained for another task, with that task."""
    for model in evaluation.models:
        if model.label == row and model.task not in (None, evaluation.task):
            return printable(f"{row} (trained for {model.task})")
    return printable(row)


def score_lines(evaluation: Evaluation) -> list[str]:
    """What was done to the images and how they were scored."""
    count = len(evaluation.images)
    shown = ", ".join(f"{name} {value}" for name, value in evaluation.options.items() if name != "operators")
    task = f"{printable(evaluation.task)} ({shown})" if shown else printable(evaluation.task)
    kind = "clipped and rounded to 8 bits" if evaluation.quantized else "neither clipped nor rounded"
    colour = "RGB" if evaluation.channel == "rgb" else "luma (BT.601); LPIPS on RGB"
    border = f", {evaluation.border} pixels cut off at each side" if evaluation.border else ""
    failed = f"; {len(evaluation.failed)} could not be evaluated" if evaluation.failed else ""
    return [
        f"{count} images{failed}. Task {task}, seed {evaluation.seed}; input {kind}.",
        f"Scores on {colour}{border}; outputs clipped to [0, 1]; PSNR above {HIGHEST_PSNR:g} dB counts as"
        f" {HIGHEST_PSNR:g} dB; means over images, in brackets the 95 % bootstrap interval of the mean over images.",
    ]


def training_lines(evaluation: Evaluation) -> list[str]:
    """For each model what it was trained for and on, and whether evaluated images are among that."""
    return [f"{printable(model.label)}: {training(model)}." for model in evaluation.models]


def training(model: ModelFacts) -> str:
    purpose = f"trained for {model.task}" if model.task else "training task not known"
    data = f"on {model.training_data}" if model.training_data else "training data not known"
    if not model.hashes_known:
        overlap = "not known whether evaluated images are among them (the weights do not list them)"
    elif model.trained_on:
        overlap = f"among them are evaluated images, {len(model.trained_on)} of them"
    else:
        overlap = "none of the evaluated images is among them"
    return printable(f"{purpose} {data}; {overlap}" if model.training_data else f"{purpose}, {data}; {overlap}")


def warning_lines(evaluation: Evaluation) -> list[str]:
    """One for each model that was trained on evaluated images."""
    lines = []
    for model in evaluation.models:
        if model.trained_on:
            names = ", ".join(printable(name) for name in model.trained_on[:NAMES_SHOWN])
            more = ", ..." if len(model.trained_on) > NAMES_SHOWN else ""
            count = f"{len(model.trained_on)} of {len(evaluation.images)} evaluated images"
            lines.append(f"WARNING: {printable(model.label)} was trained on {count}: {names}{more}")
    return lines
