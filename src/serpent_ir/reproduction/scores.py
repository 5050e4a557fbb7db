"""The weights of a row on the photographs that its table is scored on, as `serpent evaluate` scores them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from serpent_ir.data.load import list_all
from serpent_ir.data.photographs import Entry, scale_down, scaled_size
from serpent_ir.errors import DataError, ImageReadError, RestorationError, SerpentError, out_of_memory_as
from serpent_ir.evaluation import DEGRADED, Evaluator, Scoring, hash_of, make_pair
from serpent_ir.evaluation.evaluator import facts_with_overlap
from serpent_ir.files import printable
from serpent_ir.images import Picture, decode_picture
from serpent_ir.metrics import Lpips
from serpent_ir.reproduction.plan import Plan
from serpent_ir.training.initial_model import task_of

log = logging.getLogger(__name__)

ROW = "row"


def score_row(weights: Path, plan: Plan, device: torch.device, lpips: Lpips | None = None) -> dict[str, Any]:
    """images: for each photograph its `name`, the content `hash` of its file, and the scores of what the model got
    (`input`) and gave (`output`). trained_on: names of those that the weights were trained on; None when the weights do
    not say which they were.

    Raises DataError when no photograph can be read; RestorationError, naming the photograph, when one has no score:
    means over different photographs would not be comparable.
    """
    evaluator = Evaluator(
        task_of(plan.recipe), {ROW: weights}, seed=plan.seed, scoring=Scoring(lpips=lpips), device=str(device)
    )
    scored = []
    for name, picture, identity in photographs_of(plan):
        try:
            with out_of_memory_as(RestorationError, "not enough memory"):
                pair = make_pair(picture, name, evaluator.degrader, evaluator.quantized, identity)
                scores, _ = evaluator.evaluate_pair(name, pair)
        except SerpentError as error:
            raise RestorationError(f"photograph {name} cannot be scored: {error}") from error
        scored.append(scores)
    if not scored:
        raise DataError("none of the photographs to score on can be read")
    facts = facts_with_overlap(evaluator.contestants[0], scored)
    images = [
        {
            "name": image.name,
            "hash": image.content_hash,
            "input": asdict(image.scores[DEGRADED]),
            "output": asdict(image.scores[ROW]),
        }
        for image in scored
    ]
    return {"trained_on": list(facts.trained_on) if facts.hashes_known else None, "images": images}


def photographs_of(plan: Plan) -> Iterator[tuple[str, Picture, str]]:
    """Name, picture and content hash of each photograph to score, decoded when its turn comes.

    Those that cannot be read are logged and left out.
    """
    for entry in limited(list_all(plan.val), plan.limit):
        try:
            yield entry.name, *read_entry(entry)
        except ImageReadError as error:
            log.warning("skipped: %s", printable(str(error)))


def limited(entries: list[Entry], limit: int | None) -> Iterable[Entry]:
    """At most `limit` of them, evenly spaced."""
    count = len(entries) if limit is None else min(limit, len(entries))
    return [entries[index * len(entries) // count] for index in range(count)]


def read_entry(entry: Entry) -> tuple[Picture, str]:
    """The picture as `serpent evaluate` reads it, scaled down where its source says so, and its content hash before."""
    picture = decode_picture(entry.clean.read(), entry.name)
    identity = hash_of(picture)
    size = picture.height, picture.width
    smaller = size if entry.side is None else scaled_size(*size, entry.side)
    if smaller != size:
        pixels = scale_down(picture.pixels.clamp(0, 1).mul(255).round().to(torch.uint8), *smaller)
        picture = replace(picture, pixels=pixels.float().div(255), alpha=None)
    return picture, identity
