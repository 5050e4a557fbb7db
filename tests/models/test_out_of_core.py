"""A pass band by band, with its maps in memory or in files, against the pass in one piece."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tolerances import relative_error
from torch import Tensor, nn

from serpent_ir.models import create_model
from serpent_ir.models.feature_maps import JOURNAL, FileStore, MemoryStore, Store
from serpent_ir.models.out_of_core import OutOfCore, can_go_out_of_core, needed_bytes
from serpent_ir.ops import native, use_backend

Small = Callable[..., nn.Module]
needs_native = pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")


class Rows:
    """An image in memory that notes which rows were read."""

    def __init__(self, image: Tensor) -> None:
        self.image = image
        self.channels, self.height, self.width = image.shape
        self.lowest: list[int] = []

    def read(self, first: int, end: int) -> Tensor:
        assert 0 <= first < end <= self.height
        self.lowest.append(first)
        return self.image[:, first:end]


def passed(model: nn.Module, image: Tensor, store: Store, band_bytes: int) -> Tensor:
    assert can_go_out_of_core(model)
    parts: list[Tensor] = []

    def write(first: int, rows: Tensor) -> None:
        assert first == sum(part.shape[1] for part in parts)
        parts.append(rows.clone())

    OutOfCore(model, Rows(image), write, store, band_bytes).run()
    return torch.cat(parts, dim=1)


@needs_native
@pytest.mark.parametrize("band_bytes", [1, 3000, 10**9])
@pytest.mark.parametrize("size", [(1, 1), (5, 70), (61, 9), (40, 24)])
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"block": "conv"},
        {"directions": 2, "skip": "concat"},
        {"directions": 1, "input_skip": True, "depths_up": (1,)},
        {"patch_size": 1, "depths_down": (1, 1), "depths_up": (0, 1)},
    ],
)
def test_the_result_is_that_of_the_whole_image(
    nan_filled_memory: None,
    tmp_path: Path,
    small: Small,
    overrides: dict[str, object],
    size: tuple[int, int],
    band_bytes: int,
) -> None:
    model = small(**overrides).eval()
    for parameter in model.parameters():  # those that begin as zeros too
        nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 and not bool(parameter.any()) else None
    image = torch.rand(3, *size)
    with torch.no_grad():
        whole = model(image[None])[0]
    in_memory = passed(model, image, MemoryStore(), band_bytes)
    assert relative_error(in_memory, whole) < 1e-5
    assert torch.equal(passed(model, image, FileStore(tmp_path / "maps"), band_bytes), in_memory)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == [JOURNAL]


@needs_native
def test_a_pass_that_was_stopped_at_any_stage_is_resumed(tmp_path: Path, small: Small) -> None:
    model, image = small().eval(), torch.rand(3, 50, 33)
    whole = passed(model, image, MemoryStore(), 3000)

    class Stopped(Exception):
        pass

    def stop_after(stages: int) -> Callable[[int, int], None]:
        def on_stage(done: int, total: int) -> None:
            if done == stages:
                raise Stopped

        return on_stage

    total = len(OutOfCore(model, Rows(image), lambda *_: None, MemoryStore(), 3000).stages())
    for stop in range(1, total):
        folder = tmp_path / str(stop)
        with pytest.raises(Stopped):
            OutOfCore(model, Rows(image), lambda *_: None, FileStore(folder), 3000).run(stop_after(stop))
        (folder / f"scale0.{stop + 1}").write_bytes(b"half a stage")
        assert json.loads((folder / JOURNAL).read_text())["done"] == stop
        source = Rows(image)
        result = torch.full_like(whole, torch.nan)

        def write(first: int, rows: Tensor, result: Tensor = result) -> None:
            result[:, first : first + rows.shape[1]] = rows

        OutOfCore(model, source, write, FileStore(folder), 3000).run()
        assert torch.equal(result, whole)
        assert source.lowest == []  # the image had been read


@needs_native
def test_the_image_is_read_from_top_to_bottom(small: Small) -> None:
    """But for rows that are mirrored at the bottom; files are read in this order."""
    model, image = small().eval(), Rows(torch.rand(3, 101, 16))
    OutOfCore(model, image, lambda *_: None, MemoryStore(), 3000).run()
    assert len(image.lowest) > 3
    assert image.lowest[:-1] == sorted(image.lowest[:-1])
    assert image.lowest[-1] > 101 - 3 * model.config.size_multiple


@needs_native
def test_which_models_can(small: Small) -> None:
    assert can_go_out_of_core(small())
    assert not can_go_out_of_core(small().double())
    assert not can_go_out_of_core(create_model("unet-32", channels=4))
    assert not can_go_out_of_core(small().to("meta"))
    with use_backend("portable"):
        assert not can_go_out_of_core(small())
    hooked = small()
    hooked.head.register_forward_hook(lambda *_: None)
    assert not can_go_out_of_core(hooked)
    altered = small()
    altered.bottleneck[0].x_proj = nn.Sequential(altered.bottleneck[0].x_proj)
    assert not can_go_out_of_core(altered)


@needs_native
def test_less_memory_is_needed_than_for_the_maps(small: Small) -> None:
    model = create_model("serpent-b")
    sizes = {way: needed_bytes(model, 8192, 8192, 64 * 2**20, way == "memory") for way in ("memory", "disk")}
    maps = 4 * 32 * 2048**2 * (1 + 1 / 2 + 1 / 4 + 1 / 8)  # those of four scales
    assert sizes["disk"] < 0.3e9 < maps < sizes["memory"] < 1.5e9
