"""From file to file by rows, against the whole picture in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import pyvips
import torch
from torch import Tensor, nn

from serpent_ir.errors import ImageReadError, RestorationError
from serpent_ir.images import OutputOptions, Picture, read_image, write_image
from serpent_ir.models import create_model
from serpent_ir.ops import native
from serpent_ir.restoration import Restorer
from serpent_ir.restoration.large import restore_large

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


@pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")
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
