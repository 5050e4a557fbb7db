"""What the check says of results that are known to be right, smooth, noisy, or of another task."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from serpent_ir import tasks
from serpent_ir.errors import DtypeError, ShapeError
from serpent_ir.restoration import check_fidelity, found_strengths
from serpent_ir.restoration.fidelity import correlation_of_neighbours
from serpent_ir.tasks import Degradation, GaussianBlur, quantize


def pattern(height: int = 128, width: int = 160) -> Tensor:
    """(3, H, W): discs, stripes and areas with fine grain, as sharp as pixels allow, in [0, 1]."""
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    stripes = ((rows + 2 * columns) // 9 % 2) * 0.5 + 0.2
    disc = ((rows - 60) ** 2 + (columns - 90) ** 2 < 40**2).float()
    grain = torch.rand(3, height, width, generator=torch.Generator().manual_seed(5))
    grain = 0.4 * F.avg_pool2d(grain, 3, stride=1, padding=1) * (rows > 90)
    return torch.stack([stripes, 0.15 + 0.7 * disc, 0.3 + columns / 400]).add(grain).clamp(0, 1)


CLEAN = pattern()


def damaged(task: Degradation, seed: int = 1, file: bool = False, clean: Tensor = CLEAN) -> Tensor:
    image = task.damaged(clean[None], torch.Generator().manual_seed(seed))[0]
    return quantize(image) if file else image


def smooth(image: Tensor, sigma: float = 2.0) -> Tensor:
    return GaussianBlur(17, sigma)(image[None])[0]


@pytest.mark.parametrize("name", ["deblur", "sr2", "sr4", "denoise"])
@pytest.mark.parametrize("file", [False, True])
def test_the_truth_explains_its_input(name: str, file: bool) -> None:
    task = tasks.create(name, **({"sigma": 25} if name == "denoise" else {}))
    image = damaged(task, file=file)
    found = check_fidelity(CLEAN, image, tasks.create(name))
    assert found.explains and found.verdict == "the result explains the input up to noise"
    assert found.ratio == pytest.approx(1, abs=0.03)
    assert abs(found.bias) < 0.002 and abs(found.correlation - found.expected_correlation) < 0.03
    assert found.above == 0 and found.below == 0
    assert found.map.shape == (1, *image.shape[1:]) and found.map.dtype == torch.float32


@pytest.mark.parametrize("name", ["deblur", "sr2"])
def test_figures_are_those_of_the_residual(name: str) -> None:
    """Written out with the operator's own noiseless form, and the law of the noise."""
    task, result = tasks.create(name), smooth(CLEAN, 1)
    image = damaged(task)
    residual = image - tasks.create(name, noise_sigma=0.0).damaged(result[None])[0]
    found = check_fidelity(result, image, task)
    assert found.psnr == pytest.approx(-10 * math.log10(residual.double().square().mean()), abs=1e-4)
    assert found.deviation == pytest.approx(float(residual.std()), rel=1e-4)
    assert found.expected == pytest.approx(0.05, rel=0.02)
    assert found.bias == pytest.approx(float(residual.mean()), abs=0.002)
    assert len(found.lines) == 3 and f"{found.psnr:.2f} dB" in found.summary


def test_clipping_by_the_file_is_expected() -> None:
    """Half of the noise of a black picture is clipped: its deviation there is sqrt(1/2 - 1/(2 pi)) of what it was."""
    task = tasks.create("denoise", sigma=30)
    black = torch.zeros_like(CLEAN)
    found = check_fidelity(black, damaged(task, file=True, clean=black), task)
    assert found.explains and found.ratio == pytest.approx(1, abs=0.02)
    assert found.expected == pytest.approx(30 / 255 * math.sqrt(0.5 - 0.5 / math.pi), rel=0.02)
    assert abs(found.bias) < 0.002


@pytest.mark.parametrize(
    ("name", "result", "words"),
    [
        ("denoise", smooth(CLEAN), "contradicts the input"),
        ("denoise", smooth(CLEAN, 0.6), "contradicts the input"),
        ("deblur", torch.full_like(CLEAN, 0.5), "contradicts the input"),
        ("deblur", smooth(CLEAN), "lacks something of the input"),
        ("sr2", smooth(CLEAN), "contradicts the input"),
    ],
)
def test_smooth_results_are_told(name: str, result: Tensor, words: str) -> None:
    task = tasks.create(name, **({"sigma": 15} if name == "denoise" else {}))
    found = check_fidelity(result, damaged(task, file=True), task)
    assert found.explains is False and words in found.verdict, (found.verdict, found.lines)


def test_noise_that_stayed_is_told() -> None:
    task = tasks.create("denoise", sigma=25)
    image = damaged(task, file=True)
    for result in (image, 0.6 * image + 0.4 * CLEAN):
        found = check_fidelity(result, image, tasks.create("denoise"))
        assert found.ratio is not None and found.ratio < 0.7 and found.below is not None and found.below > 0.9
        assert "still holds much of the noise" in found.verdict and not found.explains


def test_less_than_a_level_is_no_contradiction() -> None:
    found = check_fidelity(quantize(CLEAN + 0.7 / 255), quantize(CLEAN), tasks.create("denoise", sigma=1))
    assert found.explains and "to within a level of 255" in found.verdict


def test_a_sharp_image_that_was_deblurred_all_the_same() -> None:
    """Sharpened in vain: blurred again it is not what came in."""
    sharpened = (CLEAN + 2 * (CLEAN - smooth(CLEAN, 1.5))).clamp(0, 1)
    found = check_fidelity(sharpened, CLEAN, tasks.create("deblur"))
    assert not found.explains and found.ratio is not None and found.ratio > 1.1 and found.correlation > 0.3


def test_where_it_differs_is_on_the_map() -> None:
    task = tasks.create("denoise", sigma=20)
    wrong = CLEAN.clone()
    wrong[:, 20:60, 30:80] += 0.2
    relative = check_fidelity(wrong, damaged(task), task).map[0]
    assert relative[25:55, 35:75].min() > 1.8 and relative[80:, 100:].max() < 1.25
    assert 1.25 > relative[80:, 100:].min() > 0.8


@pytest.mark.parametrize("quality", [12, 35, 77])
def test_the_quality_of_a_jpeg_is_found(quality: int) -> None:
    image = damaged(tasks.create("jpeg", quality=quality))
    task = tasks.create("jpeg", quality=(quality - 7, quality + 9))
    found = check_fidelity(CLEAN, image, task)
    assert found.explains and found.strengths == {"jpeg quality": quality} and found.psnr == math.inf
    assert f"equals the input; found: jpeg quality {quality}" in found.lines[0] and "takes back 100%" in found.lines[1]
    near = (CLEAN + 0.02 * (image - CLEAN)).clamp(0, 1)
    assert check_fidelity(near, image, task).strengths == found.strengths
    gray = damaged(tasks.create("jpeg", quality=quality), clean=0.2 + 0.6 * CLEAN[:1].expand(3, -1, -1))
    again = check_fidelity(gray, gray, task)  # what is compressed already is hardly changed by doing it once more
    assert again.explains and again.strengths == found.strengths
    blurred = check_fidelity(smooth(CLEAN), image, task)
    assert blurred.explains is False and blurred.ratio is not None and blurred.ratio > 0.87


def test_a_strength_is_looked_for_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the grid of JPEG's blocks, and in the same place of a larger result."""
    monkeypatch.setattr(found_strengths, "LARGEST", 48)
    task = tasks.compose("mine", [{"operator": "downscale", "factor": 2}, {"operator": "jpeg", "quality": [25, 45]}])
    clean = pattern(250, 330)
    image = damaged(
        tasks.compose("mine", [{"operator": "downscale"}, {"operator": "jpeg", "quality": 33}]), clean=clean
    )
    result, part = found_strengths.middle(clean, image, 2)
    assert result.shape == (3, 96, 96) and torch.equal(part, image[:, 32:80, 48:96])
    assert torch.equal(result, clean[:, 64:160, 96:192])
    assert check_fidelity(clean, image, task).strengths == {"jpeg quality": 33}


def test_the_width_of_a_blur_and_its_noise_are_found() -> None:
    def own(sigma: object, noise: object) -> Degradation:
        blur = {"operator": "gaussian_blur", "sigma": sigma}
        return tasks.compose("mine", [blur, {"operator": "gaussian_noise", "sigma": noise}])

    found = check_fidelity(CLEAN, damaged(own(1.7, 0.03)), own([0.5, 4], [0.0, 0.2]))
    assert found.explains and found.strengths["gaussian blur sigma"] == pytest.approx(1.7, abs=0.05)
    assert found.strengths["gaussian noise sigma"] == pytest.approx(0.03, rel=0.05)
    assert found.lines[0].endswith(f"noise sigma {255 * found.strengths['gaussian noise sigma']:.1f} of 255")


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_the_noise_of_a_file_is_found(sigma: float) -> None:
    image = damaged(tasks.create("denoise", sigma=sigma), file=True)
    found = check_fidelity(CLEAN, image, tasks.create("denoise"))
    assert 255 * found.strengths["gaussian noise sigma"] == pytest.approx(sigma, rel=0.04)


def test_photon_noise_is_expected_where_it_is_bright() -> None:
    task = tasks.compose("mine", [{"operator": "gaussian_blur", "sigma": 1}, {"operator": "poisson_noise"}])
    found = check_fidelity(CLEAN, damaged(task), task)
    assert found.explains and found.map.max() < 1.25 and found.map.min() > 0.8


@pytest.mark.parametrize(
    ("operators", "reason"),
    [
        ("photo", "task 'photo' draws its operators anew"),
        ("motion-deblur", "draws its operators anew"),
        ([{"operator": "rescale", "factor": [1, 2]}, {"operator": "jpeg"}], "several operators whose strengths vary"),
        ([{"operator": "gaussian_noise", "sigma": [0, 1]}, {"operator": "jpeg", "quality": 50}], "at the end"),
        ([{"operator": "poisson_noise", "sigma": [0, 1]}], "not Gaussian noise at the end"),
        (None, "nobody says what happened"),
    ],
)
def test_what_is_not_known_is_said(operators: object, reason: str) -> None:
    task = operators
    if operators is not None:
        task = tasks.create(operators) if isinstance(operators, str) else tasks.compose("mine", operators)  # type: ignore[arg-type]
    image = (CLEAN + 0.1).clamp(0, 1)
    found = check_fidelity(CLEAN, image, task)  # type: ignore[arg-type]
    assert found.explains is None and reason in found.verdict and "cannot be told" in found.verdict
    assert found.expected is None and found.ratio is None and found.above is None
    assert found.bias == pytest.approx(float((image - CLEAN).mean()), abs=1e-6)
    assert found.map.shape == (1, 128, 160) and bool(found.map.isfinite().all())


def test_an_unknown_enlargement_and_no_change_at_all() -> None:
    small = CLEAN[:, ::2, ::2]
    large = tasks.enlarge(small[None], 2)[0]
    found = check_fidelity(large, small, None)
    assert found.psnr == math.inf and found.deviation == 0 and found.correlation == 0
    assert found.map.shape == (1, 128, 160) and float(found.map.max()) == 0


def test_holes() -> None:
    task = tasks.create("inpaint")
    image = damaged(task)
    missing = image[3] > 0.5
    filled = torch.where(missing, torch.tensor(0.3), image[:3])
    found = check_fidelity(filled, image, task)
    assert found.explains is None and "keeps what is known" in found.verdict and "cannot be told" in found.verdict
    assert "all known pixels are as they were" in found.lines[0] and found.psnr == math.inf
    assert f"{float(missing.float().mean()):.1%} of the image was missing" in found.lines[1]
    assert torch.equal(found.map[0].isnan(), missing) and found.map[0][~missing].max() == 0
    row, column = (~missing).nonzero()[0].tolist()
    filled[0, row, column] += 0.1
    changed = check_fidelity(filled, image, task)
    assert changed.explains is False and "contradicts" in changed.verdict and "by 25.50 of 255" in changed.lines[0]


def test_the_same_each_time_and_nothing_is_written_on() -> None:
    task = tasks.create("denoise")
    image, result = damaged(task, file=True), smooth(CLEAN, 0.7)
    state, kept = torch.get_rng_state(), (image.clone(), result.clone())
    first, second = (asdict(check_fidelity(result, image, task)) for _ in range(2))
    assert torch.equal(first.pop("map"), second.pop("map")) and first == second
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(image, kept[0]) and torch.equal(result, kept[1])


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3)])
@pytest.mark.parametrize("name", ["deblur", "sr4", "denoise", "photo", "inpaint"])
def test_small_images(name: str, size: tuple[int, int]) -> None:
    clean, task = torch.full((3, *size), 0.4), tasks.create(name)
    image = damaged(task, file=True, clean=clean)
    found = check_fidelity(clean, image, task)
    assert found.map.shape == (1, *image.shape[1:]) and all(isinstance(line, str) for line in found.lines)
    assert math.isfinite(found.deviation) and math.isfinite(found.correlation)
    if name == "denoise":
        assert found.explains is None and "does not show how strong its noise is" in found.verdict


def test_correlation_of_neighbours() -> None:
    assert correlation_of_neighbours(torch.rand(3, 1, 1)) == 0 == correlation_of_neighbours(torch.full((3, 4, 5), 0.2))
    noise = torch.randn(3, 200, 200, generator=torch.Generator().manual_seed(0))
    assert abs(correlation_of_neighbours(noise)) < 0.01
    averaged = (noise[:, :, 1:] + noise[:, :, :-1]) / 2  # 1/2 along the rows, 0 along the columns
    assert correlation_of_neighbours(averaged + 3) == pytest.approx(0.25, abs=0.01)
    checkered = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(1, 8, 8)
    assert correlation_of_neighbours(checkered) == pytest.approx(-1)


def test_sizes_and_types_that_do_not_go_together() -> None:
    task = tasks.create("sr2")
    for result, image, wanted in (
        (torch.rand(3, 8, 8), torch.rand(3, 8, 8), "a result of 8 x 8 for an input of 8 x 8; expected 2 times"),
        (torch.rand(4, 8, 8), torch.rand(3, 4, 4), "a result of shape"),
        (torch.rand(3, 8, 8), torch.rand(4, 4, 4), "an input of shape"),
        (torch.rand(1, 3, 8, 8), torch.rand(3, 4, 4), "a result of shape"),
    ):
        with pytest.raises(ShapeError, match=wanted):
            check_fidelity(result, image, task)
    with pytest.raises(ShapeError):
        check_fidelity(torch.rand(3, 9, 8), torch.rand(3, 4, 4), None)
    with pytest.raises(DtypeError, match="Divide 8-bit values by 255"):
        check_fidelity(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.rand(3, 4, 4), task)
    assert check_fidelity(torch.rand(3, 7, 8), torch.rand(3, 4, 4), task).map.shape == (1, 4, 4)
