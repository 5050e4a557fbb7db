"""Which way an image goes through a model, and that all ways lead to the same result."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from serpent_ir.errors import RangeError, RestorationError, UnknownNameError
from serpent_ir.images import Picture, write_image
from serpent_ir.models import create_model
from serpent_ir.ops import native
from serpent_ir.restoration import Restorer, evaluation
from serpent_ir.restoration import restorer as restorer_module
from serpent_ir.restoration.evaluation import Evaluation, Planner
from serpent_ir.restoration.large import restore_large
from serpent_ir.restoration.seams import measure_seams

CPU = torch.device("cpu")
TINY = {"embed_channels": 6, "depths_down": (1,), "depth_bottleneck": 1, "depths_up": (0,)}
needs_native = pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return create_model("serpent-b", **TINY).eval()


@needs_native
def test_the_first_way_that_memory_allows() -> None:
    model = create_model("serpent-b")

    def way(memory: float, size: int = 4096) -> str:
        return Planner(model, CPU, 3, int(memory)).choose(1, size, size).way

    result = 48 * 4096**2
    assert way(result + 1.1e9) == "whole"
    assert way(result + 0.9e9) == "bands"
    assert way(result + 0.3e9) == "disk"
    with pytest.raises(RestorationError, match=r"needs .* GB of memory, .* may be used"):
        way(result)
    assert way(1, size=256) == "whole"  # not worth a question
    assert Planner(create_model("unet-32"), CPU, 3, int(result + 0.5e9)).choose(1, 4096, 4096).way == "tiles"


def test_tiles_are_as_large_as_fits() -> None:
    model = create_model("unet-32")
    sizes = [
        Planner(model, CPU, 3, int(48 * 3000**2 + memory)).choose(1, 3000, 3000).tile for memory in (6e9, 2e9, 5e8)
    ]
    assert sizes == [2048, 1024, 512]
    chosen = Planner(model, CPU, 3, way="tiles", tile=300, overlap=50).choose(1, 3000, 3000)
    assert (chosen.way, chosen.tile, chosen.overlap) == ("tiles", 300, 50)


def test_an_overlap_that_was_asked_for_is_kept() -> None:
    model = create_model("unet-32")
    memory = {tile: int(48 * 3000**2 + 1.2 * Planner(model, CPU, 3)._estimate(tile, tile)) for tile in (512, 1024)}
    chosen = Planner(model, CPU, 3, memory[1024], overlap=300).choose(1, 3000, 3000)
    assert (chosen.tile, chosen.overlap) == (1024, 300)
    with pytest.raises(RestorationError, match=r"needs .* GB of memory"):
        Planner(model, CPU, 3, memory[512], overlap=300).choose(1, 3000, 3000)
    assert Planner(model, CPU, 3, int(1e11), "tiles", overlap=1500).choose(1, 4000, 4000).tile == 3000


def test_what_cannot_be_asked_for() -> None:
    for wrong, error in (
        ({"way": "sideways"}, UnknownNameError),
        ({"memory": 0}, RangeError),
        ({"tile": 100, "overlap": 60}, RangeError),
        ({"overlap": -1}, RangeError),
        ({"way": "bands"}, RangeError),
    ):
        with pytest.raises(error):
            Planner(create_model("unet-32", channels=4), CPU, 3, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="precision"):
        Restorer(model=tiny(), device="cpu", precision="int8")


@needs_native
@pytest.mark.parametrize("way", ["bands", "disk"])
@pytest.mark.parametrize("size", [(1, 1), (150, 33), (40, 257)])
def test_bands_give_the_result_of_one_piece(monkeypatch: pytest.MonkeyPatch, way: str, size: tuple[int, int]) -> None:
    monkeypatch.setattr(evaluation, "BAND_BYTES", (3000,))
    model, image = tiny(), torch.rand(2, 3, *size)
    whole = Restorer(model=model, device="cpu", way="whole")(image)
    for options in ({}, {"ensemble": True}, {"strength": 0.5}):
        expected = whole if not options else Restorer(model=model, device="cpu", way="whole", **options)(image)
        result = Restorer(model=model, device="cpu", way=way, **options)(image)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


@needs_native
def test_nothing_stays_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    Restorer(model=tiny(), device="cpu", way="disk")(torch.rand(3, 40, 40))
    assert not [*tmp_path.iterdir()]


@needs_native
def test_bands_are_for_float32_and_the_native_backend() -> None:
    for options in ({"precision": "bfloat16"}, {"backend": "portable"}):
        with pytest.raises(RangeError, match="cannot be evaluated in bands"):
            Restorer(model=tiny(), device="cpu", way="bands", **options)  # type: ignore[arg-type]
        assert Restorer(model=tiny(), device="cpu", **options).planner.serpent() is None  # type: ignore[arg-type]


def test_results_that_are_larger_count() -> None:
    small, large = (
        Planner(nn.Identity(), CPU, 3, way="whole", upscale=upscale).choose(1, 300, 300) for upscale in (1, 4)
    )
    assert large.bytes - small.bytes == 48 * 300 * 300 * 15


def test_by_rows_a_strip_has_to_fit() -> None:
    planner = Planner(nn.Identity(), CPU, 3, memory=3_000_000_000)
    chosen = planner.choose_by_rows(10_000, 100_000)
    assert chosen.tile == 256 and chosen.bytes >= 2 * 48 * 256 * 100_000
    with pytest.raises(RestorationError, match="100000 x 10000 pixels"):
        Planner(nn.Identity(), CPU, 3, memory=300_000_000).choose_by_rows(10_000, 100_000)


def test_a_batch_that_does_not_fit_is_taken_apart_before_its_images_are() -> None:
    """What comes along with an image must not decide whether it has seams."""
    images = torch.rand(4, 3, 300, 320)
    planner = Planner(create_model("unet-32"), CPU, 3)
    needed = planner._estimate(300, 320) + planner.result_bytes(300, 320)
    restorer = Restorer(model=Counting(), device="cpu", memory=2 * needed, report=True)
    restorer.planner._estimates = planner._estimates
    assert restorer.planner.choose(4, 300, 320).way == "tiles"
    pictures = restorer.restore_pictures([Picture(image) for image in images], ["a", "b", "c", "d"])
    assert restorer.model.sizes == [(1, 3, 300, 320)] * 4
    assert all(picture.notes[0].startswith("restored in one piece") for picture in pictures)
    assert torch.equal(torch.stack([picture.pixels for picture in pictures]), images)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.sizes.append(tuple(image.shape))
        return image


def test_a_report_that_fails_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is there by then."""
    restorer = Restorer(model=Shifted(), device="cpu", way="tiles", tile=64, overlap=16, report=True)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(restorer_module, "measure_seams", fail)
    notes = restorer.restore_picture(Picture(torch.rand(3, 300, 300))).notes
    assert "in tiles of 64" in notes[0] and "could not be compared with one piece: there is not enough" in notes[1]


@needs_native
def test_a_temporary_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(RestorationError, match="feature maps cannot be kept on disk"):
        Restorer(model=tiny(), device="cpu", way="disk")(torch.rand(3, 300, 300))


class Unpredictable(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image * float(image.max().clamp_max(1) >= 0)


def test_modules_that_cannot_be_followed_go_in_one_piece(caplog: pytest.LogCaptureFixture) -> None:
    image = torch.rand(3, 300, 300)
    assert torch.equal(Restorer(model=Unpredictable(), device="cpu")(image), image)
    assert "cannot be forecast" in caplog.text


class Overflowing(nn.Module):
    """Not finite, or far outside of [0, 1], in less than float32 where an image is bright."""

    def __init__(self, bad: float) -> None:
        super().__init__()
        self.bad = bad
        self.calls: list[tuple[int, bool]] = []

    def forward(self, image: Tensor) -> Tensor:
        low = torch.is_autocast_enabled("cpu")
        self.calls.append((image.shape[-1], low))
        return torch.where(image > 0.9, self.bad, image) if low else image


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -4.5, 7.0])
def test_a_tile_that_overflows_is_computed_again_in_float32(bad: float) -> None:
    model, image = Overflowing(bad), torch.full((3, 64, 200), 0.5)
    image[:, 10, 195] = 1.0
    restorer = Restorer(model=model, device="cpu", precision="bfloat16", way="tiles", tile=64, overlap=16)
    with pytest.warns(RuntimeWarning, match="computed again in float32"):
        result = restorer(image)
    torch.testing.assert_close(result, image, rtol=0, atol=1e-6)
    assert [low for _, low in model.calls].count(False) == 1  # the tile at the right alone


def test_files_that_overflow_are_named(tmp_path: Path) -> None:
    for name, brightest in (("dark", 0.5), ("light", 1.0)):
        write_image(Picture(torch.full((3, 40, 50), brightest)), tmp_path / "in" / f"{name}.png")
    restorer = Restorer(model=Overflowing(float("nan")), device="cpu", precision="bfloat16")
    notes = {outcome.job.name: outcome.notes for outcome in restorer.restore_folder(tmp_path / "in", tmp_path).done}
    assert notes["dark.png"] == () and "in bfloat16 they were not finite" in notes["light.png"][0]
    write_image(Picture(torch.full((3, 1200, 20), 1.0)), tmp_path / "long.png")
    restorer = Restorer(model=Overflowing(7.0), device="cpu", precision="bfloat16", tile=64, overlap=16)
    notes_by_rows = restore_large(restorer, tmp_path / "long.png", tmp_path / "result.png")
    assert notes_by_rows == notes["light.png"]


def test_lower_precision_is_used() -> None:
    image = torch.rand(3, 32, 32)
    exact, rough = (Restorer(model=tiny(), device="cpu", precision=p)(image) for p in ("float32", "bfloat16"))
    assert 1e-6 < (exact - rough).abs().max() < 0.05


def test_what_lies_outside_the_range_passes_by() -> None:
    model = Overflowing(0.0)
    pixels = torch.tensor([-0.2, 0.5, 3.0]).view(1, 1, 3).expand(3, 1, 3).contiguous()
    restored = Restorer("sr2", model, "cpu").restore_picture(Picture(pixels, bit_depth=32))
    assert restored.pixels.shape == (3, 2, 6)
    assert restored.pixels.min() < -0.2 and restored.pixels.max() > 3
    assert torch.equal(Restorer(model=model, device="cpu").restore_picture(Picture(pixels)).pixels, pixels)


class Shifted(nn.Module):
    """The column that a pixel has in what it sees: a model that knows where a tile begins."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.arange(image.shape[3]).div(1000).expand(image.shape).clone()


def test_seams_are_measured() -> None:
    restorer = Restorer(model=Shifted(), device="cpu", way="tiles", tile=128, overlap=32, report=True)
    error = measure_seams(
        restorer._evaluated, torch.rand(3, 200, 300), Evaluation("tiles", 0, tile=128, overlap=32), lambda *_: True
    )
    assert error is not None and (error.height, error.width) == (200, 300)
    assert error.largest == pytest.approx(0.256, abs=0.07)
    assert 0.2 < error.within < 0.6  # the first tile is right
    notes = restorer.restore_picture(Picture(torch.rand(3, 300, 300))).notes
    assert "in tiles of 128 with an overlap of 32" in notes[0] and "at most" in notes[1]
    assert (
        measure_seams(restorer._evaluated, torch.rand(3, 200, 300), Evaluation("tiles", 0, tile=64), lambda *_: False)
        is None
    )
    whole = Restorer(model=Shifted(), device="cpu", report=True).restore_picture(Picture(torch.rand(3, 20, 20))).notes
    assert whole == ("restored in one piece",)


@needs_native
def test_large_files_go_by_rows_in_a_folder(tmp_path: Path) -> None:
    from serpent_ir.images import read_image

    for name, height in (("small", 90), ("large", 700)):
        write_image(Picture(torch.rand(3, height, 120)), tmp_path / "in" / f"{name}.png")
    memory = 64 * 120 * 700 + 48 * 120 * 700  # for the large one, its pass is too much
    restorer = Restorer(model=tiny(), device="cpu", memory=memory)
    assert restorer.is_large(700, 120) and not restorer.is_large(90, 120)
    summary = restorer.restore_folder(tmp_path / "in", tmp_path / "out")
    assert len(summary.done) == 2 and summary.complete
    for name in ("small", "large"):
        expected = Restorer(model=tiny(), device="cpu").restore_picture(read_image(tmp_path / "in" / f"{name}.png"))
        found = read_image(tmp_path / "out" / f"{name}.png")
        assert (found.pixels - expected.pixels).abs().max() <= 0.51 / 255 + 1e-5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".serpent-journal.jsonl",
        "large.png",
        "small.png",
    ]
