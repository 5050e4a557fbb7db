from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from photograph_files import Maker

from serpent_ir.data import PhotographSource
from serpent_ir.errors import DataError, RecipeError
from serpent_ir.evaluation.contestant import training_hashes
from serpent_ir.images import content_hash
from serpent_ir.models import read_card
from serpent_ir.training import Recipe, train
from serpent_ir.training.photographs import photographs_of

RecipeMaker = Callable[..., Recipe]


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def test_a_run_is_not_continued_with_other_photographs_unasked(tiny_recipe: RecipeMaker, make: Maker) -> None:
    first = [content_hash(make.image(f"in/{number}.png", number, 32, 32)) for number in range(2)]
    fields = {"data": [PhotographSource(str(make.root / "in"))], "generated_images": 0}
    noted = make.root / "run" / "training_images.json"
    train(tiny_recipe(**fields, max_time="0.001"))
    assert json.loads(noted.read_text()) == {"training_images": 2, "training_hashes": sorted(first)}
    train(tiny_recipe(**fields, max_time="0.001", cache="none"))
    assert json.loads(noted.read_text())["training_hashes"] == sorted(first), "the same number, and known from before"
    other = content_hash(make.image("in/1.png", 7, 32, 32))
    with pytest.raises(RecipeError, match="photographs are others"):
        train(tiny_recipe(**fields))
    result = train(tiny_recipe(**fields, max_time="0.001", resume="anyway"))
    assert json.loads(noted.read_text())["training_hashes"] == sorted([*first, other])
    make.image("in/2.png", 8, 32, 32)
    with pytest.raises(RecipeError, match="photographs are others"):
        train(tiny_recipe(**fields, cache="none"))
    result = train(tiny_recipe(**fields, cache="none", resume="anyway"))
    assert json.loads(noted.read_text()) == {"training_images": 3}
    assert result.weights is not None and "training_hashes" not in read_card(result.weights).provenance


def pairs(make: Maker, folder: str, count: int) -> PhotographSource:
    for number in range(count):
        for side, seed in (("clean", number), ("degraded", 10 + number)):
            make.image(f"{folder}/{side}/{number}.png", seed, 32, 32)
    return PhotographSource(str(make.root / folder), layout="paired")


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_held_out_photographs_are_not_trained_on(tiny_recipe: RecipeMaker, make: Maker, cache: str) -> None:
    hashes = {f"{number}.png": content_hash(make.image(f"in/{number}.png", number)) for number in range(6)}
    recipe = tiny_recipe(data=[PhotographSource(str(make.root / "in"))], generated_images=0, held_out=2, cache=cache)
    training, held_out = photographs_of(recipe)
    assert [photograph.name for photograph in held_out] == ["0.png", "3.png"]
    assert [photograph.name for photograph in training.readable()] == ["1.png", "2.png", "4.png", "5.png"]
    assert training.in_memory == (cache == "memory")
    expected = sorted(hashes[f"{number}.png"] for number in (1, 2, 4, 5))
    assert training.hashes() == (expected if cache == "memory" else None)
    with pytest.raises(RecipeError, match="held_out is 6 of 6"):
        photographs_of(tiny_recipe(data=recipe.data, generated_images=0, held_out=6))


def test_weights_name_the_content_of_their_training_photographs(
    tiny_recipe: RecipeMaker, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sorted(content_hash(make.image(f"in/{number}.png", number, 40, 40)) for number in range(3))
    fields = {"data": [PhotographSource(str(make.root / "in"), (1.0, 1.5))], "generated_images": 0, "steps": 2}
    result = train(tiny_recipe(**fields))
    assert result.weights is not None
    assert read_card(result.weights).provenance["training_hashes"] == expected
    monkeypatch.setattr("serpent_ir.training.weights_file.MOST_HASHES", 2)
    result = train(tiny_recipe(**fields, resume="never"))
    assert result.weights is not None
    assert "training_hashes" not in read_card(result.weights).provenance
    assert training_hashes(read_card(result.weights), result.weights) == frozenset(expected), "from the file beside"
    (make.root / "run" / "training_images.json").write_text(json.dumps({"training_hashes": expected[:2]}))
    assert training_hashes(read_card(result.weights), result.weights) is None, "another list says nothing of them"


def test_pairs_are_trained_on_as_they_are(
    tiny_recipe: RecipeMaker, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model sees the degraded files under a task name of one's own; validation too."""
    seen: list[torch.Tensor] = []
    recipe = tiny_recipe(
        data=[pairs(make, "train", 2)], val=[pairs(make, "val", 1)], generated_images=0, task="old-scanner", steps=2
    )
    monkeypatch.setattr(
        "serpent_ir.training.restoration_module.RestorationModule.on_train_batch_start",
        lambda module, batch, index: seen.append(batch[1]),
    )
    result = train(recipe)
    assert result.weights is not None and read_card(result.weights).task == "old-scanner"
    degraded = {pixel for number in range(2) for pixel in colours(make.image("x.png", 10 + number, 32, 32))}
    assert all(colours((batch[0] * 255).round().byte()) <= degraded for batch in seen)
    assert result.val_psnr is not None and result.val_psnr > 0


def colours(pixels: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in pixels.flatten(1).T.tolist()}


def test_pairs_need_pairs_for_validation(tiny_recipe: RecipeMaker, make: Maker) -> None:
    make.image("plain/a.png")
    plain = [PhotographSource(str(make.root / "plain"))]
    with pytest.raises(RecipeError, match="field val"):
        photographs_of(tiny_recipe(data=[pairs(make, "train", 1)], val=plain, generated_images=0))
    with pytest.raises(
        RecipeError, match="val names pairs; expected photographs without a degraded version, as in data"
    ):
        photographs_of(tiny_recipe(data=plain, val=[pairs(make, "val", 1)], generated_images=0))
    with pytest.raises(RecipeError, match=r"field task_options .* none for pairs"):
        tiny_recipe(data=[pairs(make, "train", 1)], task_options={"noise_sigma": 0.0})
    with pytest.raises(DataError, match="mixed"):
        photographs_of(tiny_recipe(data=[pairs(make, "train", 1)], generated_images=2))
