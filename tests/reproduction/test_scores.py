"""Scoring a row, compared with `serpent evaluate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from serpent_ir.data import PhotographSource
from serpent_ir.errors import DataError, RestorationError
from serpent_ir.evaluation import DEGRADED, Evaluator
from serpent_ir.images import Picture, read_image, write_image
from serpent_ir.models import create_model, save_model
from serpent_ir.reproduction.plan import Plan, Request, make_plan
from serpent_ir.reproduction.scores import photographs_of, score_row
from serpent_ir.reproduction.tables import Table

CPU = torch.device("cpu")


@pytest.fixture
def plan(table: Table, request_: Request, tmp_path: Path) -> Plan:
    return dataclasses.replace(make_plan(table, table.rows[0], request_, tmp_path), seed=5)


def weights(path: Path, task: str, channels: int, hashes: list[str] | None = None) -> Path:
    """Random weights of a tiny Serpent for images of so many channels."""
    torch.manual_seed(1)
    model = create_model(
        "serpent-b",
        embed_channels=6, depths_down=(1,), depth_bottleneck=1, depths_up=(0,), directions=1, in_channels=channels,
    )  # fmt: skip
    provenance = {} if hashes is None else {"training_hashes": hashes}
    save_model(model, path, task=task, provenance=provenance)
    return path


@pytest.mark.parametrize(("task", "channels"), [("deblur", 3), ("inpaint", 4)])
def test_scores_are_those_of_an_evaluation(plan: Plan, photographs: Path, task: str, channels: int) -> None:
    (photographs / "broken.png").write_bytes(b"not an image")
    write_image(Picture(torch.rand(1, 20, 30).expand(3, -1, -1).contiguous(), gray=True), photographs / "gray.png")
    write_image(Picture(torch.rand(3, 20, 30), bit_depth=16), photographs / "deep.png")
    file = weights(photographs / "w.safetensors", task, channels)
    expected = Evaluator(task, {"row": file}, seed=5, device="cpu").evaluate(photographs)
    result = score_row(file, dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, task=task)), CPU)
    assert len(expected.images) == len(result["images"]) == 4 and result["trained_on"] is None
    for image, ours in zip(expected.images, result["images"], strict=True):
        assert (image.name, image.content_hash) == (ours["name"], ours["hash"])
        for row, side in ((DEGRADED, "input"), ("row", "output")):
            assert ours[side] == dataclasses.asdict(image.scores[row])


def test_scaled_photographs_are_known_by_their_files(plan: Plan, photographs: Path) -> None:
    ((_, _, first), (_, _, second)) = photographs_of(plan)
    smaller = dataclasses.replace(plan, val=[PhotographSource(str(photographs), size=24)])
    found = list(photographs_of(smaller))
    assert [(name, picture.pixels.shape) for name, picture, _ in found] == [
        ("generated-0.png", (3, 24, 32)),
        ("generated-1.png", (3, 24, 32)),
    ]
    whole = read_image(photographs / "generated-1.png").pixels[None]
    averaged = torch.nn.functional.interpolate(whole, (24, 32), mode="bicubic", antialias=True)[0].clamp(0, 1)
    assert (found[1][1].pixels - averaged).abs().max() <= 0.5 / 255 + 1e-6
    result = score_row(weights(photographs / "w.safetensors", "deblur", 3, [second]), smaller, CPU)
    assert [image["hash"] for image in result["images"]] == [first, second]
    assert result["trained_on"] == ["generated-1.png"]


def test_limit_takes_photographs_evenly(plan: Plan, photographs: Path) -> None:
    for number in (2, 3):
        (photographs / f"generated-{number}.png").write_bytes((photographs / "generated-0.png").read_bytes())
    found = photographs_of(dataclasses.replace(plan, limit=2))
    assert [name for name, *_ in found] == ["generated-0.png", "generated-2.png"]


def test_photographs_without_scores_are_errors(plan: Plan, photographs: Path) -> None:
    file = weights(photographs / "w.safetensors", "deblur", 3)
    write_image(Picture(torch.rand(3, 8, 30)), photographs / "small.png")
    with pytest.raises(RestorationError, match=r"photograph small\.png cannot be scored: .*11 x 11"):
        score_row(file, plan, CPU)
    for path in photographs.glob("*.png"):
        path.write_bytes(b"not an image")
    with pytest.raises(DataError, match="none of the photographs"):
        score_row(file, plan, CPU)
