"""From file to file by rows, against the whole picture in memory."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import pyvips
import torch
from torch import Tensor, nn

from serpent_ir.errors import ImageReadError, ImageWriteError, RestorationError
from serpent_ir.files import leftover_name
from serpent_ir.images import OutputOptions, Picture, large, read_image, write_image
from serpent_ir.models import create_model
from serpent_ir.ops import native
from serpent_ir.restoration import Restorer
from serpent_ir.restoration.large import restore_large

needs_native = pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")
TINY = {"embed_channels": 6, "depths_down": (1,), "depth_bottleneck": 1, "depths_up": (0,)}


class Local(nn.Module):
    """Looks at the pixels next to each, and no further."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        return nn.functional.avg_pool2d(nn.functional.pad(image[:, :3], (1, 1, 1, 1), mode="replicate"), 3, 1)


def write_source(path: Path, height: int = 300, width: int = 70, alpha: bool = False, bits: int = 16) -> Path:
    planes = torch.rand(4, height, width, generator=torch.Generator().manual_seed(0))
    metadata = {"icc-profile-data": pyvips.Operation.call("profile_load", "p3")}
    write_image(Picture(planes[:3], planes[3:] if alpha else None, bits, metadata=metadata), path)
    return path


def compare(restorer: Restorer, source: Path, tmp_path: Path, options: OutputOptions | None = None) -> None:
    by_rows, at_once = tmp_path / "rows.png", tmp_path / "once.png"
    notes = restore_large(restorer, source, by_rows, options)
    write_image(restorer.restore_picture(read_image(source)), at_once, options)
    one, other = read_image(by_rows), read_image(at_once)
    assert (one.bit_depth, one.gray, one.metadata) == (other.bit_depth, other.gray, other.metadata)
    assert notes == read_image(source).notes
    maximum = 2**one.bit_depth - 1
    assert (one.pixels - other.pixels).abs().max() <= 2.01 / maximum  # one of the profile is more than one of sRGB
    assert (one.alpha is None) == (other.alpha is None)
    if one.alpha is not None and other.alpha is not None:
        assert (one.alpha - other.alpha).abs().max() <= 2.01 / maximum  # one of the profile is more than one of sRGB
    assert sorted(path.name for path in tmp_path.iterdir()) == ["once.png", "rows.png", source.name]


@needs_native
def test_a_serpent_in_bands(tmp_path: Path) -> None:
    restorer = Restorer(model=create_model("serpent-b", **TINY).eval(), device="cpu")
    compare(restorer, write_source(tmp_path / "source.png"), tmp_path)


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("task", [None, "sr2"])
def test_tiles(tmp_path: Path, task: str | None, alpha: bool, strength: float) -> None:
    restorer = Restorer(task, Local(), "cpu", strength=strength, tile=64, overlap=16)
    compare(restorer, write_source(tmp_path / "source.png", alpha=alpha), tmp_path, OutputOptions(bit_depth=8))


def test_inpainting(tmp_path: Path) -> None:
    restorer = Restorer("inpaint", Local(), "cpu", tile=64, overlap=16)
    compare(restorer, write_source(tmp_path / "source.png", alpha=True), tmp_path)
    with pytest.raises(RestorationError, match="no transparency"):
        restore_large(restorer, write_source(tmp_path / "opaque.png"), tmp_path / "a.png")


class Stopped(BaseException):
    pass


def stop_at(step: int) -> object:
    def on_stage(done: int, total: int) -> None:
        if done >= step:
            raise Stopped

    return on_stage


@pytest.mark.parametrize("way", ["disk", "tiles"])
def test_what_was_stopped_is_continued(tmp_path: Path, way: str) -> None:
    if way == "disk" and native.unavailable is not None:
        pytest.skip("the compiled part is not installed")
    source = write_source(tmp_path / "source.png")
    target, straight = tmp_path / "target.png", tmp_path / "straight.png"
    model: nn.Module = create_model("serpent-b", **TINY).eval() if way == "disk" else Local()
    restorer = Restorer(model=model, device="cpu", way=way, tile=64, overlap=16)
    restore_large(restorer, source, straight)
    if isinstance(model, Local):
        straight_calls, model.calls = model.calls, 0
    for step in (1, 2, 3) if way == "disk" else (40, 90, 200):
        with pytest.raises(Stopped):
            restore_large(restorer, source, target, on_stage=stop_at(step))  # type: ignore[arg-type]
        assert not target.exists()
    stages: list[int] = []
    restore_large(restorer, source, target, on_stage=lambda done, total: stages.append(done))
    assert stages[0] == (3 if way == "disk" else 256)  # rows
    assert target.read_bytes() == straight.read_bytes()
    if isinstance(model, Local):
        assert model.calls <= straight_calls + 3 * 2 * 2  # a strip or two again after each stop


def test_another_task_begins_anew(tmp_path: Path) -> None:
    source, target = write_source(tmp_path / "source.png"), tmp_path / "target.png"
    model = Local()
    restorer = Restorer(model=model, device="cpu", tile=64, overlap=16)
    with pytest.raises(Stopped):
        restore_large(restorer, source, target, settings={"task": "a"}, on_stage=stop_at(200))  # type: ignore[arg-type]
    done: list[int] = []
    restore_large(restorer, source, target, settings={"task": "b"}, on_stage=lambda rows, _: done.append(rows))
    assert done[0] < 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.png", "target.png"]


def test_a_damaged_file_and_an_ensemble_are_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source.png", height=3000)
    source.write_bytes(source.read_bytes()[:-300_000])
    with pytest.raises(ImageReadError, match="truncated or damaged"):
        restore_large(Restorer(model=Local(), device="cpu", tile=64, overlap=16), source, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
    with pytest.raises(RestorationError, match="ensemble"):
        restore_large(Restorer(model=Local(), device="cpu", ensemble=True), source, tmp_path / "a.png")


def test_what_the_format_has_no_room_for_is_refused_before_the_pass(tmp_path: Path) -> None:
    model = Local()
    restorer = Restorer(model=model, device="cpu", tile=64, overlap=16)
    wide = write_source(tmp_path / "wide.png", height=3, width=16400)
    with pytest.raises(ImageWriteError, match=r"16400 x 3 pixels are too many for a \.webp file"):
        restore_large(restorer, wide, tmp_path / "a.webp")
    with pytest.raises(ImageWriteError, match=r"too many for a \.avif file"):
        write_image(read_image(wide), tmp_path / "a.avif")
    clear = write_source(tmp_path / "clear.png", alpha=True)
    with pytest.raises(ImageWriteError, match=r"a\.jpg cannot be written: a picture with transparency"):
        restore_large(restorer, clear, tmp_path / "a.jpg")
    assert model.calls == 0 and sorted(path.name for path in tmp_path.iterdir()) == ["clear.png", "wide.png"]
    write_image(replace(read_image(clear), alpha=torch.ones(1, 300, 70)), clear)
    restore_large(restorer, clear, tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").alpha is None


def test_nothing_is_left_where_another_try_would_fail_too(tmp_path: Path) -> None:
    source, target = write_source(tmp_path / "source.png"), tmp_path / "a.png"
    restorer = Restorer(model=Gain(float("nan")), device="cpu", tile=64, overlap=16)
    with pytest.raises(RestorationError, match="not finite"):
        restore_large(restorer, source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["source.png"]


def test_nothing_is_left_of_a_run_that_was_killed(tmp_path: Path) -> None:
    """While it encoded; and where the next one had more memory, and made the file at once."""
    source, target = write_source(tmp_path / "source.png"), tmp_path / "a.png"
    restorer = Restorer(model=Local(), device="cpu", tile=64, overlap=16)
    with pytest.raises(Stopped):
        restore_large(restorer, source, target, on_stage=stop_at(200))  # type: ignore[arg-type]
    leftover_name(target).write_bytes(b"half of it")
    restore_large(restorer, source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "source.png"]
    for again in (restorer.restore_file, lambda *_: restorer.restore_folder(tmp_path / "in", tmp_path / "out")):
        write_source(tmp_path / "in" / "b.png")
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(Stopped):
            restore_large(restorer, source, tmp_path / "out" / "b.png", on_stage=stop_at(200))  # type: ignore[arg-type]
        assert folder_of(tmp_path / "out" / "b.png").is_dir()
        again(tmp_path / "in" / "b.png", tmp_path / "out" / "b.png")
        assert not folder_of(tmp_path / "out" / "b.png").exists()
        (tmp_path / "out" / "b.png").unlink()


def folder_of(target: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.with_name(f".serpent-{digest}.parts")


class Gain(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, image: Tensor) -> Tensor:
        return image * self.gain


def test_a_second_result_of_the_same_name_is_its_own(tmp_path: Path) -> None:
    """libvips must not take the samples of the first for it, nor keep them open."""
    source, target = write_source(tmp_path / "source.png"), tmp_path / "target.png"
    means = []
    for gain in (1.0, 0.5):
        restore_large(Restorer(model=Gain(gain), device="cpu", tile=64, overlap=16), source, target)
        means.append(float(read_image(target).pixels.mean()))
    assert means[1] < 0.7 * means[0]
    if Path("/proc/self/fd").exists():
        links = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if os.path.islink(entry)]
        assert not [link for link in links if "samples" in link]


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    source, target = write_source(tmp_path / "source.png"), tmp_path / "target.png"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    folder_of(target).symlink_to(tmp_path / "precious")
    with pytest.raises(ImageWriteError, match="is a link, or belongs to somebody else"):
        restore_large(Restorer(model=Local(), device="cpu", tile=64, overlap=16), source, target)
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["file"]


@pytest.mark.parametrize("damage", ["progress.json", "task.json", "maps/stages.json", "samples"])
def test_a_damaged_folder_is_begun_anew(tmp_path: Path, damage: str) -> None:
    source, target, straight = write_source(tmp_path / "source.png"), tmp_path / "target.png", tmp_path / "straight.png"
    bands = damage.startswith("maps")
    if bands and native.unavailable is not None:
        pytest.skip("the compiled part is not installed")
    model: nn.Module = create_model("serpent-b", **TINY).eval() if bands else Local()
    restorer = Restorer(model=model, device="cpu", tile=64, overlap=16)
    restore_large(restorer, source, straight)
    with pytest.raises(Stopped):
        restore_large(restorer, source, target, on_stage=stop_at(3 if bands else 90))  # type: ignore[arg-type]
    if damage == "samples":  # the removal of the folder was stopped
        (folder_of(target) / "task.json").unlink()
        (folder_of(target) / "samples").unlink()
    else:
        (folder_of(target) / damage).write_bytes(b"")
    restore_large(restorer, source, target)
    assert target.read_bytes() == straight.read_bytes()
    assert not folder_of(target).exists()


@needs_native
def test_damage_is_named_whatever_the_way(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source.png", height=3000)
    source.write_bytes(source.read_bytes()[:-300_000])
    restorer = Restorer(model=create_model("serpent-b", **TINY).eval(), device="cpu")
    with pytest.raises(ImageReadError, match="truncated or damaged"):
        restore_large(restorer, source, tmp_path / "a.png")
    with pytest.raises(ImageWriteError, match="a suffix among"):
        restore_large(restorer, write_source(tmp_path / "good.png"), tmp_path / "a.xyz")
    with pytest.raises(ImageReadError, match="does not exist"):
        restore_large(restorer, tmp_path / "missing.png", tmp_path / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.png", "source.png"]


def test_a_source_that_changes_is_noticed(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source.tif")

    def change(rows: int, _: int) -> None:
        with source.open("rb+") as file:
            file.write(b"II")
        os.utime(source, ns=(1, rows))

    restorer = Restorer(model=Local(), device="cpu", tile=64, overlap=16)
    with pytest.raises(ImageReadError, match="was changed while it was restored"):
        restore_large(restorer, source, tmp_path / "a.png", on_stage=change)
    assert not (tmp_path / "a.png").exists()


def test_the_range_of_all_rows_is_said(tmp_path: Path) -> None:
    pixels = torch.rand(3, 200, 30)
    pixels[0, 150, 10] = 3.5
    write_image(Picture(pixels, bit_depth=32), tmp_path / "a.tif")
    restorer = Restorer(model=Local(), device="cpu", tile=64, overlap=16)
    notes = restore_large(restorer, tmp_path / "a.tif", tmp_path / "b.tif")
    assert notes == read_image(tmp_path / "a.tif").notes and "and 3.5" in notes[0]


class Doubling(nn.Module):
    class config:
        upscale = 2

    def forward(self, image: Tensor) -> Tensor:
        return image.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_a_file_is_opened_once_for_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_source(tmp_path / "source.png", height=1000, width=20)
    opened = []
    monkeypatch.setattr(
        large.PictureReader, "_open", lambda self, real=large.PictureReader._open: opened.append(1) or real(self)
    )
    restore_large(Restorer(model=Doubling(), device="cpu", tile=64, overlap=16), source, tmp_path / "a.png")
    assert len(opened) == 1
