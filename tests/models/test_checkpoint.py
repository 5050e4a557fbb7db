"""Weights files: what is in them, and what happens to those that are not as they should be."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from serpent_ir.errors import CheckpointError, UnknownNameError
from serpent_ir.models import embedded_weights, find_weights, list_embedded, load_model, read_card, save_model


@pytest.fixture
def model(small: Callable[..., nn.Module]) -> nn.Module:
    return small()


@pytest.fixture
def saved(model: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(model, path, task="deblur", provenance={"steps": 3, "data": ["a", "b"]}, dtype=torch.float16)
    return path


def test_card_comes_from_the_header(model: nn.Module, saved: Path) -> None:
    card = read_card(saved)
    assert (card.model, card.task, card.provenance) == ("serpent-l", "deblur", {"steps": 3, "data": ["a", "b"]})
    assert card.dtype == "F16"
    assert card.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert card.config["embed_channels"] == 8 and card.config["depths_down"] == [1]


def test_half_precision_file_gives_a_float32_model(model: nn.Module, saved: Path) -> None:
    loaded = load_model(saved)
    for (name, value), (other, original) in zip(loaded.state_dict().items(), model.state_dict().items(), strict=True):
        assert name == other and value.dtype == torch.float32
        assert torch.equal(value, original.half().float())


def test_can_be_read_with_no_code_of_ours(saved: Path) -> None:
    content = saved.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    assert metadata["format"] == "serpent-ir" and json.loads(metadata["config"])["patch_size"] == 2


def test_saving_replaces_and_leaves_nothing_behind(model: nn.Module, saved: Path) -> None:
    save_model(model, saved)
    assert read_card(saved).dtype == "F32" and read_card(saved).task is None
    assert [path.name for path in saved.parent.iterdir()] == ["model.safetensors"]
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_model(model, saved.parent / "missing" / "model.safetensors")
    for provenance in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises(CheckpointError, match="the provenance cannot be stored"):
            save_model(model, saved, provenance=provenance)


def test_missing_and_damaged_files(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    for name, damaged in {
        "empty": b"",
        "text": b"this is not a weights file at all",
        "truncated": content[: len(content) // 2],
        "huge-header": struct.pack("<Q", 1 << 60) + content[8:],
        "pickle": b"\x80\x04\x95\x0e\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    }.items():
        path = tmp_path / name
        path.write_bytes(damaged)
        for read in (read_card, load_model):
            with pytest.raises(CheckpointError, match="not a readable safetensors file"):
                read(path)
    with pytest.raises(CheckpointError, match="no file"):
        load_model(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match="no file"):
        load_model(tmp_path)


def test_files_that_are_not_ours_or_do_not_fit(saved: Path, tmp_path: Path) -> None:
    tensors, path = load_file(saved), tmp_path / "other.safetensors"
    card = {"format": "serpent-ir", "version": "1", "model": "serpent-l", "task": "", "provenance": "{}"}
    config = json.dumps(read_card(saved).config)
    for metadata, content, message in [
        (None, tensors, "no serpent-ir header"),
        (card | {"version": "2"}, tensors, "format version '2'; expected '1'"),
        (card, tensors, "damaged header"),
        (card | {"config": "{"}, tensors, "damaged header"),
        (card | {"config": "[]"}, tensors, "damaged header"),
        (card | {"config": "[" * 100_000}, tensors, "damaged header"),
        (card | {"config": "{}", "provenance": "[1]"}, tensors, "damaged header"),
        (card | {"config": '{"embed_channels": "many"}'}, tensors, "cannot be made"),
        (card | {"config": '{"embed_channels": 1000000000000}'}, tensors, "cannot be made"),
        (card | {"config": '{"embed_channels": 4096}'}, tensors, "does not fit"),
        (card | {"config": '{"depths_down": [100000], "depths_up": [0]}'}, tensors, "cannot be made"),
        (card | {"config": config}, {name: tensor.long() for name, tensor in tensors.items()}, "floating point"),
        (card | {"config": "{}", "model": "serpent-x"}, tensors, "cannot be made: model 'serpent-x'"),
        (card | {"config": '{"patch": 3}'}, tensors, "cannot be made: field 'patch'"),
        (card | {"config": "{}"}, tensors, "does not fit serpent-l"),
        (card | {"config": config}, {"head.weight": tensors["head.weight"]}, "does not fit serpent-l"),
    ]:
        save_file(content, path, metadata)
        with pytest.raises(CheckpointError, match=message):
            load_model(path)


def test_embedded_weights() -> None:
    found = list_embedded()
    assert ("deblur", "serpent-b") in [(task, model) for task, model, _ in found]
    for task, name, path in found:
        assert embedded_weights(task, name) == path
        card = read_card(path)
        assert (card.task, card.model, card.dtype) == (task, name, "F16")
        assert path.stat().st_size < 8e6
        assert {"recipe", "steps", "seconds", "val_psnr"} <= set(card.provenance)
        with torch.no_grad():
            assert load_model(path)(torch.full((1, 3, 32, 32), 0.5)).sub(0.5).abs().max() < 0.1  # gray stays gray
    with pytest.raises(UnknownNameError, match="expected one of: deblur with serpent-b"):
        embedded_weights("deblur", "serpent-x")


def test_embedded_weights_are_found_by_their_name_and_all_else_is_a_file() -> None:
    task, model, path = list_embedded()[0]
    assert find_weights(model, task) == find_weights(None, task) == find_weights(path.stem, "jpeg") == path
    for name in ("some/file.safetensors", "theirs.PTH", Path("deblur-serpent-b")):
        assert find_weights(name, "deblur") == Path(name)
    with pytest.raises(UnknownNameError, match="'restaurant'"):
        find_weights("restaurant", "deblur")
