from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from serpent_ir import tasks
from serpent_ir.errors import (
    CheckpointError,
    DeviceError,
    DtypeError,
    ImageReadError,
    ImageWriteError,
    RangeError,
    RestorationError,
    ShapeError,
    UnknownNameError,
)
from serpent_ir.images import Picture, read_image, write_image
from serpent_ir.models import ModelCard, create_model, read_card, save_model
from serpent_ir.ops.backends import choose
from serpent_ir.restoration import Restorer, restore
from serpent_ir.restoration.strength import blended

TINY = {"embed_channels": 6, "depths_down": (1,), "depth_bottleneck": 1, "depths_up": (0,), "directions": 1}


class Affine(nn.Module):
    """gain * x + offset, noting what it was given."""

    def __init__(self, gain: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.gain, self.offset = gain, offset
        self.seen: list[tuple[tuple[int, ...], torch.dtype]] = []
        self.backends: list[str] = []
        self.in_inference_mode = False

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append((tuple(image.shape), image.dtype))
        self.backends.append(choose(image.device).backend)
        self.in_inference_mode = torch.is_inference_mode_enabled() and not self.training
        return self.gain * image + self.offset


class Raising(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, image: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize("shape", [(3, 5, 7), (3, 1, 1), (1, 3, 4, 1), (4, 3, 2, 3), (3, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shapes_and_types(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    model = Affine(gain=2.0, offset=-0.5)
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    restored = Restorer(model=model, device="cpu")(image)
    assert restored.dtype == torch.float32
    assert torch.equal(restored, (2 * image.float() - 0.5).clamp(0, 1))
    assert model.seen == [((1, *shape)[-4:] if len(shape) == 3 else shape, torch.float32)]
    assert model.in_inference_mode


def test_the_result_is_an_ordinary_tensor() -> None:
    restored = Restorer(model=Affine(), device="cpu")(torch.rand(3, 4, 4))
    assert not restored.is_inference()
    weight = torch.ones(3, 4, 4, requires_grad=True)
    (restored * weight).sum().backward()
    assert torch.equal(weight.grad, restored)


def test_the_input_is_not_touched() -> None:
    image = torch.linspace(-1, 2, 48).reshape(3, 4, 4)
    before = image.clone()
    Restorer(model=Affine(), device="cpu")(image)
    assert torch.equal(image, before)


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (4, 4, 3), (3, 0, 4), (1, 1, 3, 4, 4)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected \(3, H, W\) or \(B, 3, H, W\)"):
        Restorer(model=Affine(), device="cpu")(torch.zeros(shape))


def test_integers_are_refused() -> None:
    with pytest.raises(DtypeError, match=r"torch\.uint8.*255"):
        Restorer(model=Affine(), device="cpu")(torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_output_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(RestorationError, match=r"output is not finite.*its input was finite"):
        Restorer(model=Affine(offset=float("nan")), device="cpu")(torch.zeros(3, 4, 4))
    with pytest.raises(RestorationError, match="not finite either"):
        Restorer(model=Affine(), device="cpu")(torch.full((3, 4, 4), float("inf")))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_too_little_memory_is_named(error: Exception) -> None:
    with pytest.raises(RestorationError, match="not enough memory on cpu for an image of 9 x 8 pixels"):
        Restorer(model=Raising(error), device="cpu")(torch.zeros(3, 8, 9))


def test_other_errors_of_the_model_pass_through() -> None:
    with pytest.raises(RuntimeError, match=r"^bug$"):
        Restorer(model=Raising(RuntimeError("bug")), device="cpu")(torch.zeros(3, 8, 9))


def test_backend_holds_during_the_call_only() -> None:
    model, default = Affine(), choose(torch.device("cpu")).backend
    Restorer(model=model, device="cpu", backend="portable")(torch.zeros(3, 4, 4))
    Restorer(model=model, device="cpu")(torch.zeros(3, 4, 4))
    assert model.backends == ["portable", default]
    with pytest.raises(UnknownNameError, match="backend 'abacus'"):
        Restorer(model=model, device="cpu", backend="abacus")


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "mps:99"])
def test_devices_that_are_not_there(device: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{device}' cannot be used"):
        Restorer(model=Affine(), device=device)


def test_default_device_without_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert Restorer(model=Affine()).device == torch.device("cpu")


def test_weights_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = create_model("serpent-b").eval(), tmp_path / "weights.safetensors"
    save_model(model, path, task="deblur")
    image = torch.rand(3, 9, 14)
    with torch.inference_mode():
        expected = model(image[None])[0].clamp(0, 1)
    for given in (path, str(path)):
        torch.testing.assert_close(Restorer("deblur", given, "cpu")(image), expected)
    with pytest.raises(CheckpointError, match="trained for the task 'deblur'; expected weights for 'denoise'"):
        Restorer("denoise", path, "cpu")
    save_model(model, path)
    torch.testing.assert_close(Restorer("denoise", path, "cpu")(image), expected)


def test_a_model_that_enlarges(tmp_path: Path) -> None:
    model = create_model("swinir-sr", embed_channels=12, depths=(1,), heads=(2,), window_size=4, upscale=3)
    torch.save({"params": model.state_dict()}, tmp_path / "x3.pth")
    restorer = Restorer(model=str(tmp_path / "x3.pth"), device="cpu")
    pixels = torch.rand(3, 5, 7)
    assert restorer(pixels).shape == (3, 15, 21) and restorer(pixels[None]).shape == (1, 3, 15, 21)
    alpha = torch.linspace(0, 1, 7).expand(1, 5, 7)
    picture = restorer.restore_picture(Picture(pixels, alpha, bit_depth=16))
    assert torch.equal(picture.pixels, restorer(pixels)) and picture.bit_depth == 16
    assert picture.alpha is not None and picture.alpha.shape == (1, 15, 21)
    torch.testing.assert_close(picture.alpha[:, 7, 4:-4:3], alpha[:, 2, 1:-1], rtol=0, atol=1e-6)
    assert torch.equal(restorer.restore_picture(Picture(pixels)).pixels, picture.pixels)


def test_super_resolution_takes_the_small_image(tmp_path: Path) -> None:
    small = torch.rand(2, 3, 5, 7)
    model = Affine()
    restorer = Restorer("sr4", model, "cpu")
    assert torch.equal(restorer(small), tasks.enlarge(small, 4).clamp(0, 1))
    assert torch.equal(restorer(small[0]), restorer(small)[0]) and restorer.enlarge == 4
    assert model.seen[0] == ((2, 3, 20, 28), torch.float32)
    prepared = torch.rand(3, 19, 27)
    assert torch.equal(restorer.restore_prepared(prepared), prepared)
    picture = restorer.restore_picture(Picture(small[0], torch.full((1, 5, 7), 0.25), gray=True))
    assert picture.pixels.shape == (3, 20, 28) and picture.gray
    torch.testing.assert_close(picture.alpha, torch.full((1, 20, 28), 0.25))
    enlarging = create_model("swinir-sr", embed_channels=12, depths=(1,), heads=(2,), window_size=4, upscale=2)
    assert Restorer("sr2", enlarging, "cpu")(small).shape == (2, 3, 10, 14)  # not enlarged twice
    write_image(Picture(small[0]), tmp_path / "small.png")
    assert restore(tmp_path / "small.png", "sr2", Affine(), "cpu").shape == (3, 10, 14)


class Filling(nn.Module):
    """0.5 everywhere, after a look at what came in."""

    def forward(self, image: Tensor) -> Tensor:
        assert image.shape[1] == 4 and set(image[:, 3].unique().tolist()) <= {0.0, 1.0}
        assert (image[:, :3] * image[:, 3:] == 0).all()
        return torch.full_like(image[:, :3], 0.5)


def test_inpainting_fills_what_is_missing_and_keeps_the_rest() -> None:
    restorer = Restorer("inpaint", Filling(), "cpu")
    holed = torch.rand(2, 4, 6, 9)
    filled, missing = restorer(holed), holed[:, 3:] > 0.5
    assert torch.equal(filled, torch.where(missing, torch.tensor(0.5), holed[:, :3]))
    assert torch.equal(restorer(holed[1]), filled[1]) and torch.equal(restorer.restore_prepared(holed), filled)
    samples = holed[0].mul(255).to(torch.uint8)
    assert torch.equal(restore(samples.permute(1, 2, 0).numpy(), "inpaint", Filling(), "cpu"), restorer(samples / 255))
    alpha = torch.tensor([0.0, 0.49, 0.51, 1.0]).view(1, 1, 4)
    picture = restorer.restore_picture(Picture(torch.full((3, 1, 4), 0.2), alpha, bit_depth=16), "a.png")
    assert picture.alpha is None and picture.bit_depth == 16
    assert picture.pixels[0, 0].tolist() == pytest.approx([0.5, 0.5, 0.2, 0.2])
    with pytest.raises(RestorationError, match=r"b/a\.png has no transparency; expected an alpha channel"):
        restorer.restore_picture(Picture(torch.rand(3, 4, 4)), "b/a.png")
    with pytest.raises(ShapeError, match=r"\(4, H, W\) or \(B, 4, H, W\)"):
        restorer(torch.rand(3, 4, 4))
    with pytest.raises(ShapeError, match="maps 3 to 3 channels; expected 4 to 3"):
        Restorer("inpaint", create_model("serpent-b", **TINY), "cpu")


def test_a_file_says_what_it_was_trained_for(tmp_path: Path) -> None:
    tiny, path = create_model("serpent-b", **TINY), tmp_path / "w.safetensors"
    operators = [{"operator": "downscale", "factor": 3}, {"operator": "jpeg"}]
    for task, provenance, enlarge in (
        ("sr2", {}, 2),
        ("mine", {"recipe": {"operators": operators}}, 3),  # composed in a recipe
        ("mine", {"recipe": {"operators": []}}, 1),
        ("sr2", {"recipe": {"data": [{"path": "p", "layout": "paired"}]}}, 1),  # pairs of photographs, of one size
        ("inpaint", {"recipe": {"data": [{"path": "p", "layout": "paired"}]}}, 1),
        ("mine", {}, 1),
        (None, {}, 1),
    ):
        save_model(tiny, path, task=task, provenance=provenance)
        restorer = Restorer(model=path, device="cpu")
        assert (restorer.task, restorer.enlarge, restorer.channels) == (task, enlarge, 3)
    save_model(create_model("serpent-b", **TINY, in_channels=4), path, task="inpaint")
    assert Restorer(model=str(path), device="cpu").channels == 4
    with pytest.raises(CheckpointError, match="trained for the task 'inpaint'"):
        Restorer("photo", path, "cpu")
    save_model(tiny, path, task="mine", provenance={"recipe": {"operators": [{"operator": "fog"}]}})
    with pytest.raises(CheckpointError, match=r"cannot be used.*fog"):
        Restorer(model=path, device="cpu")
    save_model(tiny, path)
    with pytest.raises(UnknownNameError, match="unknown task 'unbake'"):
        Restorer("unbake", path, "cpu")


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    """As a degradation, and as a file; its name is that of the weights."""
    own, path = tmp_path / "phone.json", tmp_path / "w.safetensors"
    own.write_text('[{"operator": "downscale", "factor": 3}, {"operator": "jpeg"}]')
    save_model(create_model("serpent-b", **TINY), path, task="phone")
    for task, model in ((own, Affine()), (str(own), path), (tasks.load_task(own), Affine())):
        restorer = Restorer(task, model, "cpu")
        assert (restorer.task, restorer.enlarge) == ("phone", 3)
    assert Restorer(tasks.compose("mine", [{"operator": "holes"}]), Filling(), "cpu").channels == 4
    save_model(create_model("serpent-b", **TINY), path, task="deblur")
    with pytest.raises(CheckpointError, match="trained for the task 'deblur'; expected weights for 'phone'"):
        Restorer(own, path, "cpu")
    with pytest.raises(UnknownNameError, match="no embedded weights for task 'phone'"):
        Restorer(own)


def test_embedded_weights_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a task those for photo, without a model the first in the order of the registry."""
    monkeypatch.setattr("serpent_ir.models.embedded._FOLDER", tmp_path)
    with pytest.raises(UnknownNameError, match=r"no embedded weights for task 'photo'; expected one of: none at all"):
        Restorer()
    for task, model in (("deblur", "serpent-b"), ("photo", "serpent-l"), ("photo", "serpent-h")):
        save_model(create_model(model, **TINY), tmp_path / f"{task}-{model}.safetensors", task=task)
    for arguments, expected in (
        ((), ("photo", "serpent-l")),
        (("deblur",), ("deblur", "serpent-b")),
        ((None, "serpent-h"), ("photo", "serpent-h")),
    ):
        card = Restorer(*arguments, device="cpu").card
        assert card is not None and (card.task, card.model) == expected
    with pytest.raises(
        UnknownNameError, match="'photo' with model 'serpent-b'; expected one of: deblur with serpent-b"
    ):
        Restorer(model="serpent-b")


def test_models_that_are_not_for_colour_images(tmp_path: Path) -> None:
    path = tmp_path / "gray.safetensors"
    model = create_model("serpent-b", in_channels=1, out_channels=1, **TINY)
    save_model(model, path, task="deblur")
    for given in (path, model):
        with pytest.raises(ShapeError, match="the model maps 1 to 1 channels; expected 3 to 3"):
            Restorer("deblur", given, "cpu")


def test_the_card_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.safetensors"
    save_model(create_model("serpent-b", **TINY), path, task="deblur")
    calls: list[Path] = []

    def counted(path: Path) -> ModelCard:
        calls.append(path)
        return read_card(path)

    monkeypatch.setattr("serpent_ir.models.checkpoint.read_card", counted)
    card = Restorer("deblur", path, "cpu").card
    assert calls == [path] and card is not None and card.task == "deblur"


def test_weights_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        Restorer("deblur", "serpent-z")
    with pytest.raises(UnknownNameError):
        Restorer("unbake", "serpent-b")
    with pytest.raises(CheckpointError):
        Restorer("deblur", tmp_path / "missing.safetensors")


def test_restore_file(tmp_path: Path) -> None:
    alpha = torch.linspace(0, 1, 20).reshape(1, 4, 5).mul(65535).round() / 65535
    write_image(Picture(torch.full((3, 4, 5), 0.2), alpha, 16, gray=True), tmp_path / "in.png")
    (tmp_path / "out").mkdir()
    written = Restorer(model=Affine(gain=2), device="cpu").restore_file(tmp_path / "in.png", tmp_path / "out")
    assert written == tmp_path / "out" / "in.png"
    picture = read_image(written)
    assert (picture.bit_depth, picture.gray) == (16, True)
    assert picture.alpha is not None and torch.equal(picture.alpha, alpha)
    assert picture.pixels.unique().tolist() == pytest.approx([0.4])


def test_restore_file_does_not_replace_its_input_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    write_image(Picture(torch.full((3, 4, 5), 0.2)), path)
    restorer = Restorer(model=Affine(gain=2), device="cpu")
    with pytest.raises(ImageWriteError, match="is the input itself"):
        restorer.restore_file(path, path)
    restorer.restore_file(path, path, overwrite=True)
    assert read_image(path).pixels.unique().tolist() == pytest.approx([0.4])
    with pytest.raises(ImageReadError, match="does not exist"):
        restorer.restore_file(tmp_path / "missing.png", tmp_path / "out.png")


def test_a_folder_is_restored_once_by_equal_weights(tmp_path: Path) -> None:
    write_image(Picture(torch.full((3, 4, 5), 0.2)), tmp_path / "in" / "a.png")

    def restored(*arguments: Any) -> bool:
        restorer = Restorer(*arguments, device="cpu")
        return len(restorer.restore_folder(tmp_path / "in", tmp_path / "out").done) == 1

    for file, seed in (("w.safetensors", 0), ("copy.safetensors", 0), ("other.safetensors", 1)):
        torch.manual_seed(seed)
        save_model(create_model("serpent-b", **TINY), tmp_path / file)
    assert restored("deblur", tmp_path / "w.safetensors") and not restored("deblur", tmp_path / "copy.safetensors")
    assert restored("deblur", tmp_path / "other.safetensors") and restored("sr2", tmp_path / "other.safetensors")
    assert restored("deblur", Affine(2)) and restored("deblur", Affine(3))  # what decides is not among their tensors


def test_pictures_of_equal_size_as_one_batch() -> None:
    model = Affine(gain=2)
    pictures = [Picture(torch.rand(3, 4, 5), torch.rand(1, 4, 5), 16), Picture(torch.rand(3, 4, 5), gray=True)]
    restorer = Restorer("sr2", model, "cpu")
    for restored, picture in zip(restorer.restore_pictures(pictures, ["a", "b"]), pictures, strict=True):
        alone = restorer.restore_picture(picture)
        assert torch.equal(restored.pixels, alone.pixels) and restored.gray == picture.gray
        assert (restored.alpha is None) == (picture.alpha is None) and restored.bit_depth == picture.bit_depth
        assert restored.alpha is None or torch.equal(restored.alpha, alone.alpha)
    assert [shape for shape, _ in model.seen] == [(2, 3, 8, 10), (1, 3, 8, 10), (1, 3, 8, 10)]


def test_restore_folder(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png"):
        write_image(Picture(torch.full((3, 4, 5), 0.2)), tmp_path / "in" / name)
    (tmp_path / "in" / "bad.jpg").write_text("not a picture")
    (tmp_path / "in" / "photo.heic").write_text("of a kind that is not known")
    seen: list[str] = []
    summary = Restorer(model=Affine(gain=2), device="cpu").restore_folder(
        str(tmp_path / "in"), str(tmp_path / "out"), lambda outcome: seen.append(outcome.source.name)
    )
    assert sorted(seen) == ["a.png", "bad.jpg", "c.png"]
    assert [path.target.name for path in summary.done] == ["a.png", "c.png"]
    assert [path.source.name for path in summary.failed] == ["bad.jpg"]
    assert [path.name for path in summary.ignored] == ["photo.heic"]
    assert read_image(tmp_path / "out" / "b" / "c.png").pixels.unique().tolist() == pytest.approx([0.4])


class Shifting(nn.Module):
    """What comes in, one pixel to the right: it matters how an image lies."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :3].roll(1, -1)


def test_ensemble() -> None:
    image = torch.rand(2, 3, 4, 7)
    neighbours = [image.roll(step, axis) for step in (1, -1) for axis in (-1, -2)]
    restored = Restorer(model=Shifting(), device="cpu", ensemble=True)(image)
    torch.testing.assert_close(restored, torch.stack(neighbours).mean(0), rtol=0, atol=1e-6)
    assert not restored.is_inference()
    small = Restorer("sr2", Affine(0.5), "cpu", ensemble=True)(image)
    torch.testing.assert_close(small, Restorer("sr2", Affine(0.5), "cpu")(image))
    holed = torch.cat([image, (image[:, :1] > 0.5).float()], dim=1)
    filled, missing = Restorer("inpaint", Shifting(), "cpu", ensemble=True)(holed), holed[:, 3:] > 0.5
    known = image.masked_fill(missing, 0)
    mean = torch.stack([known.roll(step, axis) for step in (1, -1) for axis in (-1, -2)]).mean(0)
    torch.testing.assert_close(filled, torch.where(missing, mean, image), rtol=0, atol=1e-6)
    assert torch.equal(filled.where(~missing, 0), known)
    model = create_model("serpent-b", **TINY).eval()
    picture = Restorer(model=model, device="cpu", ensemble=True)
    turned = picture(image[0].rot90(1, (-2, -1)))
    torch.testing.assert_close(turned.rot90(-1, (-2, -1)), picture(image[0]), rtol=0, atol=1e-5)


def test_strength() -> None:
    image = torch.rand(2, 3, 4, 7)
    whole = Restorer(model=Affine(0.5), device="cpu")(image)
    for strength in (0, 0.0, 0.25, 1, 1.0):
        restored = Restorer(model=Affine(0.5), device="cpu", strength=strength)(image)
        assert torch.equal(restored, blended(image, whole, strength))
    assert torch.equal(Restorer(model=Affine(0.5), device="cpu", strength=0)(image), image)
    noisy = torch.tensor([-0.5, 0.5, 1.5]).reshape(3, 1, 1)
    assert Restorer(model=Affine(), device="cpu", strength=0)(noisy).flatten().tolist() == [0, 0.5, 1]
    large = tasks.enlarge(image, 2).clamp(0, 1)
    for model in (Affine(0), nn.Upsample(scale_factor=2)):
        restorer = Restorer("sr2" if isinstance(model, Affine) else None, model, "cpu", strength=0)
        assert torch.equal(restorer(image), large)
    alpha = torch.rand(1, 4, 7)
    picture = Restorer(model=Affine(0.5), device="cpu", strength=0.5).restore_picture(Picture(image[0], alpha))
    assert torch.equal(picture.pixels, blended(image[0], whole[0], 0.5)) and picture.alpha is alpha


def test_strengths_that_are_refused() -> None:
    for strength in (-0.1, 1.5, float("nan")):
        with pytest.raises(RangeError, match="expected a number from 0"):
            Restorer(model=Affine(), device="cpu", strength=strength)
    with pytest.raises(RangeError, match=r"strength 0\.5 for task 'inpaint'.*no input to mix with"):
        Restorer("inpaint", Filling(), "cpu", strength=0.5)


def test_the_degradation_is_known_where_somebody_says_it() -> None:
    own = tasks.compose("mine", [{"operator": "jpeg"}])
    assert Restorer(own, Affine(), "cpu").degradation is own
    named = Restorer("sr4", Affine(), "cpu").degradation
    assert named is not None and (named.name, named.enlarge) == ("sr4", 4)
    assert Restorer(model=Affine(), device="cpu").degradation is None
