"""How many dB do the embedded weights gain over a Wiener filter with its best constant, on CBSD68 `deblur`?

    python benchmarks/deblur_cbsd68.py --data FOLDER [--model FILE]

FOLDER holds the 68 colour images. Both see exactly the same degraded images, once by the paper's protocol (neither
clipped nor rounded) and once as a file would hold them (clipped, 8 bits). The filter is given every advantage:

- It knows the blur. The blur continues the image by reflection, so the blurred image is a product in the cosine
  transform of that symmetry (type I): deconvolution there is exact up to the border, no edge is invented.
- X = H Y / (H^2 + c) per channel with the constant c, the noise-to-signal ratio, that gives the best mean PSNR on
  these very images, found on a grid in steps of 10 %; a further row takes the best c for each image by itself.
- The mean of each channel is taken off before and put back after, since c would darken the image ("plain": it is not).
- The result is clipped to [0, 1].

Writes results/deblur_cbsd68.json. Exit status 1 when the gain over the filter is below 1 dB (paper's protocol).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import scipy.fft
import torch
from common import mean_and_error, refuse_when_the_scan_is_wrong, write_result
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from serpent_ir import tasks
from serpent_ir.evaluation import Evaluator, Pair, Scores, Scoring
from serpent_ir.images import find_images

CONSTANTS = np.geomspace(0.004, 0.4, 49)
REQUIRED_GAIN = 1.0
ROWS = {
    "degraded": "degraded input",
    "wiener_plain": "Wiener, best constant, plain",
    "wiener": "Wiener, best constant",
    "wiener_per_image": "Wiener, best for each image",
    "serpent": "Serpent",
}


class Wiener:
    """The filter for the Gaussian blur with reflected border of a `deblur` task."""

    def __init__(self, blur_sigma: float, kernel_size: int) -> None:
        self.offsets = np.arange(kernel_size) - kernel_size // 2
        kernel = np.exp(-(self.offsets**2) / (2 * blur_sigma**2))
        self.kernel = kernel / kernel.sum()

    def response(self, length: int) -> np.ndarray:
        """What the blur multiplies each of the `length` cosines of one axis by."""
        frequencies = np.pi * np.arange(length) / (length - 1)
        return np.cos(frequencies[:, None] * self.offsets) @ self.kernel

    def responses(self, height: int, width: int) -> np.ndarray:
        return self.response(height)[:, None] * self.response(width)

    def blur(self, image: Tensor) -> Tensor:
        """(3, H, W) float64; the model of the blur that the filter inverts."""
        spectrum = scipy.fft.dctn(image.numpy(), type=1, axes=(1, 2)) * self.responses(*image.shape[1:])
        return torch.from_numpy(scipy.fft.idctn(spectrum, type=1, axes=(1, 2)))

    def restore(self, degraded: Tensor, constants: np.ndarray, keep_mean: bool = True) -> list[Tensor]:
        """(3, H, W) -> the filtered image, float64 in [0, 1], for each of the constants."""
        image = degraded.double().numpy()
        mean = image.mean(axis=(1, 2), keepdims=True) if keep_mean else 0.0
        spectrum = scipy.fft.dctn(image - mean, type=1, axes=(1, 2))
        response = self.responses(*image.shape[1:])
        filtered = (spectrum * (response / (response**2 + constant)) for constant in constants)
        images = (scipy.fft.idctn(one, type=1, axes=(1, 2)) + mean for one in filtered)
        return [torch.from_numpy(one).clamp(0, 1) for one in images]


def refuse_when_the_filter_is_wrong(wiener: Wiener, options: dict[str, Any]) -> None:
    """Exit unless the filter's model of the blur is the task's own."""
    clean = torch.rand(1, 3, 70, 45, generator=torch.Generator().manual_seed(0))
    blurred = tasks.create("deblur", **{**options, "noise_sigma": 0.0})(clean)[0]
    error = float((wiener.blur(clean[0].double()) - blurred).abs().max())
    if not error < 1e-5:
        raise SystemExit(f"refused: the filter's model of the blur is off by {error:.1e}")


def search(wiener: Wiener, pairs: list[Pair], keep_mean: bool, label: str) -> tuple[int, list[int]]:
    """Positions in CONSTANTS: the best for the mean PSNR of all images, and the best for each image."""
    psnr = np.empty((len(pairs), len(CONSTANTS)))
    for row, pair in enumerate(track(pairs, label, console=Console(stderr=True))):
        errors = [(image - pair.clean).square().mean() for image in wiener.restore(pair.degraded, CONSTANTS, keep_mean)]
        psnr[row] = -10 * np.log10(errors)
    best, best_of_image = int(psnr.mean(axis=0).argmax()), psnr.argmax(axis=1).tolist()
    if {best, *best_of_image} & {0, len(CONSTANTS) - 1}:
        raise SystemExit(f"refused: a best constant lies at an end of the grid, {CONSTANTS[[0, -1]]}")
    return best, best_of_image


def run_protocol(evaluator: Evaluator, wiener: Wiener, folder: Path) -> dict[str, Any]:
    """All rows on all images: scores, means, constants, and differences with their standard errors."""
    serpent, measure = evaluator.contestants[0], Scoring()
    names = [path.relative_to(folder).as_posix() for path in find_images(folder)]
    pairs = [evaluator.read_pair(folder, name) for name in names]
    best, best_of_image = search(wiener, pairs, True, "searching the constant")
    plain, _ = search(wiener, pairs, False, "searching the plain constant")

    scores: dict[str, list[Scores]] = {row: [] for row in ROWS}
    for pair, own in zip(track(pairs, "restoring", console=Console(stderr=True)), best_of_image, strict=True):
        shared_image, own_image = wiener.restore(pair.degraded, CONSTANTS[[best, own]])
        (plain_image,) = wiener.restore(pair.degraded, CONSTANTS[[plain]], keep_mean=False)
        images = (pair.degraded, plain_image, shared_image, own_image, serpent(pair))
        for row, image in zip(ROWS, images, strict=True):
            scores[row].append(measure(image, pair.clean))

    def gain_over(row: str) -> dict[str, float]:
        return mean_and_error(
            [ours.psnr - theirs.psnr for ours, theirs in zip(scores["serpent"], scores[row], strict=True)]
        )

    return {
        "mean": {row: mean_scores(values) for row, values in scores.items()},
        "psnr_gain_of_serpent_over": {row: gain_over(row) for row in ROWS if row != "serpent"},
        "wiener_constant": {"wiener": CONSTANTS[best], "wiener_plain": CONSTANTS[plain]},
        "images": [
            {"name": name, "wiener_constant": CONSTANTS[own], **{row: numbers(scores[row][index]) for row in ROWS}}
            for index, (name, own) in enumerate(zip(names, best_of_image, strict=True))
        ],
    }


def numbers(scores: Scores) -> dict[str, float]:
    return {"psnr": scores.psnr, "ssim": scores.ssim}


def mean_scores(scores: list[Scores]) -> dict[str, float]:
    return {"psnr": fmean(one.psnr for one in scores), "ssim": fmean(one.ssim for one in scores)}


def print_table(protocol: str, result: dict[str, Any]) -> None:
    table = Table(title=f"CBSD68 deblur, {protocol} protocol, {len(result['images'])} images; gains ± standard error")
    for header in ("", "PSNR dB", "SSIM", "Serpent gains, dB"):
        table.add_column(header, justify="left" if not header else "right")
    for row, label in ROWS.items():
        mean, gain = result["mean"][row], result["psnr_gain_of_serpent_over"].get(row)
        difference = f"{gain['mean']:+.3f} ± {gain['standard_error']:.3f}" if gain else ""
        table.add_row(label, f"{mean['psnr']:.3f}", f"{mean['ssim']:.4f}", difference)
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the 68 images of CBSD68")
    parser.add_argument("--model", default="serpent-b", help="embedded weights' model name, or a .safetensors file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    refuse_when_the_scan_is_wrong(("native",))
    options = tasks.create("deblur").options
    wiener = Wiener(options["blur_sigma"], options["kernel_size"])
    refuse_when_the_filter_is_wrong(wiener, options)

    result: dict[str, Any] = {"question": (__doc__ or "").splitlines()[0], "seed": arguments.seed, "options": options}
    for protocol, quantized in (("paper", False), ("quantized", True)):
        evaluator = Evaluator("deblur", [arguments.model], seed=arguments.seed, quantized=quantized, device="cpu")
        result["model"] = evaluator.contestants[0].facts.card
        result[protocol] = run_protocol(evaluator, wiener, arguments.data)
        print_table(protocol, result[protocol])
    gain = result["paper"]["psnr_gain_of_serpent_over"]["wiener"]["mean"]
    print(f"gain over Wiener with its best constant: {gain:+.3f} dB; required: at least {REQUIRED_GAIN} dB")
    print(f"written: {write_result('deblur_cbsd68', result)}")
    return 0 if gain >= REQUIRED_GAIN else 1


if __name__ == "__main__":
    raise SystemExit(main())
