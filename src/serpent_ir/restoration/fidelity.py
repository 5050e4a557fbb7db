"""Does a result explain the image that it was made of? It is degraded once more, and the two are compared.

This can show that a result is wrong, never that it is right: many images explain the same input, and a result with
invented detail that the damage hides explains it as well as the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from serpent_ir.errors import DtypeError, ShapeError
from serpent_ir.metrics import psnr
from serpent_ir.restoration.fidelity_map import local_rms
from serpent_ir.restoration.found_strengths import as_delivered, drawn, why_unknown, with_found_strengths
from serpent_ir.tasks import Degradation, enlarge
from serpent_ir.tasks.repeat import repeatable

LEVEL = 1 / 255
ROUNDING = LEVEL / math.sqrt(12)
"""Standard deviation of the error of rounding to 8 bits: no residual is expected to be smaller."""

NOTHING = 1e-6
"""An RMS that is only the error of float32."""

ABOVE, BELOW = 1.25, 0.8
"""A place counts when its local RMS is more, or less, than so many times that of noise, which noise alone hardly
reaches (see `fidelity_map.WINDOW_SIGMA`)."""

LARGEST_RATIO = 1.1
SMALLEST_RATIO = 0.75
LARGEST_SHARE_ABOVE = 0.05
LARGEST_CORRELATION = 0.02
LARGEST_UNEXPLAINED = 0.75
"""What the verdicts turn on; chosen on photographs, see docs/conventions.md."""


@dataclass(frozen=True, eq=False)
class Fidelity:
    """How well a result, degraded again, explains the input. Values are of the range [0, 1].

    The residual is input - A(result), A being the task's operators without noise. What is expected of it is made by
    degrading the result with noise, and clipping and rounding it where the input is: a draw of what the input would be
    if the result were the truth (a posterior predictive check, Gelman, Meng and Stern 1996).

    verdict: a sentence. explains: whether it says yes; None where nothing can tell, as the operators are not known.
    psnr: of A(result) against the input in dB; of the result itself where A is not known; infinite for equal images.
    deviation, bias: standard deviation and mean of the residual; of the bias, what clipping explains is taken off.
    expected: the standard deviation that is expected; for a task without noise the RMS of what the restoration
        changed, which A should take back; None where A is not known.
    correlation: of the residual with itself one pixel to the right and below (1 / sqrt(pixels) is its own error where
        the residual is white noise). Noise leaves about 0, lost detail more: Almeida and Figueiredo 2013, "Parameter
        estimation for blind and non-blind deblurring using residual whiteness measures"; for denoising it is the method
        noise of Buades, Coll and Morel 2005.
    expected_correlation: that of what is expected; 0 where A is not known or has no noise.
    above, below: the shares of the image where the residual's local RMS is above 1.25 times and below 0.8 times what is
        expected there; None for a task without noise, or not known.
    strengths: those of the task that vary from image to image, as found for this one: "jpeg quality" -> 35.0.
    map: (1, h, w) float32, of the size of the input: the residual's local RMS in a Gaussian window of 4 pixels, over
        what is expected there (over its own RMS where A is not known). NaN where the image was missing.
    lines: the same for people.
    """

    verdict: str
    explains: bool | None
    psnr: float
    deviation: float
    bias: float
    correlation: float
    map: Tensor
    lines: tuple[str, ...]
    expected: float | None = None
    expected_correlation: float = 0.0
    above: float | None = None
    below: float | None = None
    strengths: dict[str, float] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """One line for people."""
        return f"{self.verdict}; {self.lines[0]}"

    @property
    def ratio(self) -> float | None:
        """The residual's standard deviation over what is expected."""
        return None if self.expected is None else self.deviation / self.expected


def check_fidelity(result: Tensor, image: Tensor, degradation: Degradation | None) -> Fidelity:
    """How well `result` explains `image`, the input it was restored from; see `Fidelity`.

    result: (3, H, W), image: (channels, h, w) as `Restorer` takes it, both floating point in [0, 1]; what is in [0, 1]
    and on the levels of 255 counts as read from a file. degradation: what happened to the image; None when nobody says.

    - Noise of varying strength: it is estimated from the image (see `noise_level`), if that has 3 x 3 pixels, else
      nobody knows what happened. Another operator of varying strength: the one with the least residual is taken; of
      JPEG's qualities that is the one whose ghost is the faintest (Farid 2009, "Exposing digital forgeries from JPEG
      ghosts"). What was found is named.
    - Operators that are drawn for each image (`photo`), or two strengths besides noise: nobody knows what happened. How
      much was changed, and with what structure, is said, and no more.
    - Holes: the known pixels should be as they were. Nothing can tell whether the others are right.

    Deterministic. Raises ShapeError when the sizes do not go together, DtypeError for integers.
    """
    result, image = result.detach().cpu(), image.detach().cpu()
    factor = check_forms(result, image, degradation)
    result, image = result.float(), image.float()
    if degradation is not None and degradation.channels == 4:
        return of_holes(result, image)
    reason = "nobody says what happened to it" if degradation is None else why_unknown(degradation, image)
    known = None if degradation is None or reason else repeatable(degradation)
    if known is None:
        return of_a_change(result, enlarge(image[None], factor)[0], reason)
    known, strengths = with_found_strengths(known, result, image)
    again = known.without_noise().damaged(result[None])[0]
    if len(known.without_noise().operators) == len(known.operators):
        return without_noise(result, image, again, enlarge(image[None], factor, size_of(result))[0], strengths)
    return with_noise(image, again, as_delivered(drawn(known, result), image), strengths)


def with_noise(image: Tensor, again: Tensor, delivered: Tensor, strengths: dict[str, float]) -> Fidelity:
    """again: A(result); delivered: the same with noise, as the image would have come."""
    residual, noise = image - again, delivered - again
    deviation, expected = float(residual.std(correction=0)), math.hypot(float(noise.std(correction=0)), ROUNDING)
    bias = float(residual.mean() - noise.mean())
    relative = local_rms(residual) / (local_rms(noise).square() + ROUNDING**2).sqrt()
    above, below = float((relative > ABOVE).float().mean()), float((relative < BELOW).float().mean())
    correlation, usual = correlation_of_neighbours(residual), correlation_of_neighbours(noise)
    ratio = deviation / expected
    tolerated = max(LARGEST_CORRELATION, 3 / math.sqrt(residual[0].numel()))
    if rms(residual) <= LEVEL and expected <= 2 * LEVEL:
        verdict, explains = "explains the input to within a level of 255", True
    elif ratio > LARGEST_RATIO or above > LARGEST_SHARE_ABOVE:
        verdict, explains = "contradicts the input: degraded again, it differs by more than noise", False
    elif correlation - usual > tolerated:
        verdict, explains = "lacks something of the input: what is left over is not as random as noise", False
    elif ratio < SMALLEST_RATIO:
        verdict, explains = "still holds much of the noise, or of detail as fine", False
    else:
        verdict, explains = "explains the input up to noise", True
    return Fidelity(
        verdict=f"the result {verdict}",
        explains=explains,
        psnr=decibels(again, image),
        deviation=deviation,
        bias=bias,
        correlation=correlation,
        map=relative,
        lines=(
            f"degraded again, it {nearness(again, image)} (noise alone: {decibels(delivered, again):.2f} dB)"
            f"{named(strengths)}",
            f"residual: standard deviation {255 * deviation:.2f} of 255, {ratio:.2f} times that of noise"
            f" ({255 * expected:.2f}); mean {255 * bias:+.2f}",
            f"structure: correlation of neighbours {correlation:+.3f} (noise: {usual:+.3f}); above {ABOVE} times the"
            f" noise in {above:.1%} of the image, below {BELOW} times in {below:.1%}",
        ),
        expected=expected,
        expected_correlation=usual,
        above=above,
        below=below,
        strengths=strengths,
    )


def without_noise(
    result: Tensor, image: Tensor, again: Tensor, before: Tensor, strengths: dict[str, float]
) -> Fidelity:
    """before: the image at the size of the result."""
    residual = image - again
    left, changed = rms(residual), max(rms(before - result), ROUNDING)
    unexplained = (left / changed) ** 2
    explains = left <= LEVEL or unexplained <= LARGEST_UNEXPLAINED
    correlation, deviation = correlation_of_neighbours(residual), float(residual.std(correction=0))
    return Fidelity(
        verdict="the result explains the input" if explains else "the result contradicts the input",
        explains=explains,
        psnr=decibels(again, image),
        deviation=deviation,
        bias=float(residual.mean()),
        correlation=correlation,
        map=local_rms(residual) / changed,
        lines=(
            f"degraded again, it {nearness(again, image)}{named(strengths)}",
            f"changed: RMS {255 * changed:.2f} of 255, of which degrading again takes back {1 - unexplained:.0%}"
            if left <= changed
            else f"changed: RMS {255 * changed:.2f} of 255, less than degrading again changes",
            f"residual: standard deviation {255 * deviation:.2f} of 255; mean {255 * float(residual.mean()):+.2f};"
            f" correlation of neighbours {correlation:+.3f}",
        ),
        expected=changed,
        strengths=strengths,
    )


def of_a_change(result: Tensor, image: Tensor, reason: str) -> Fidelity:
    """What can be said without knowing the operators: how much was changed, and what that looks like."""
    change = image - result
    correlation, deviation = correlation_of_neighbours(change), float(change.std(correction=0))
    return Fidelity(
        verdict=f"whether the result explains the input cannot be told: {reason}",
        explains=None,
        psnr=decibels(result, image),
        deviation=deviation,
        bias=float(change.mean()),
        correlation=correlation,
        map=local_rms(change) / max(rms(change), ROUNDING),
        lines=(
            f"taken away: standard deviation {255 * deviation:.2f} of 255; mean {255 * float(change.mean()):+.2f}",
            f"structure of that: correlation of neighbours {correlation:+.3f} (white noise: 0; edges and areas: to 1)",
        ),
    )


def of_holes(result: Tensor, image: Tensor) -> Fidelity:
    """image: (4, H, W), the last channel 1 where it is missing."""
    missing = image[3:] > 0.5
    change = (image[:3].clamp(0, 1) - result).masked_fill(missing, 0)
    changed, largest = float((change.abs().amax(dim=0)[~missing[0]] > 0).sum()), float(change.abs().max())
    known = int((~missing).sum())
    kept = f"{changed / max(known, 1):.1%} of the known pixels were changed, by {255 * largest:.2f} of 255 at most"
    ratio = (local_rms(change) / ROUNDING).masked_fill(missing, math.nan)
    return Fidelity(
        verdict="the result keeps what is known; whether it fills the rest rightly cannot be told"
        if largest <= LEVEL
        else "the result contradicts the input: known pixels were changed",
        explains=None if largest <= LEVEL else False,
        psnr=decibels(image[:3].clamp(0, 1).where(~missing, result), result),
        deviation=float(change.std(correction=0)),
        bias=float(change.mean()),
        correlation=correlation_of_neighbours(change),
        map=ratio,
        lines=(
            kept if changed else "all known pixels are as they were",
            f"{float(missing.float().mean()):.1%} of the image was missing: the input says nothing about it",
        ),
    )


def check_forms(result: Tensor, image: Tensor, degradation: Degradation | None) -> int:
    """How many times larger the result is. Raises ShapeError, DtypeError."""
    channels = 3 if degradation is None else degradation.channels
    for name, values, depth in (("a result", result, 3), ("an input", image, channels)):
        if values.ndim != 3 or values.shape[0] != depth or values.numel() == 0:
            raise ShapeError(f"{name} of shape {tuple(values.shape)}", f"({depth}, H, W) with H, W >= 1")
        if not values.is_floating_point():
            raise DtypeError(f"{name} of {values.dtype}", "floating point in [0, 1]", "Divide 8-bit values by 255.")
    factor = max(1, result.shape[1] // image.shape[1]) if degradation is None else degradation.enlarge
    whole = degradation is not None
    fitting = [(math.ceil(side / factor) if whole else side / factor) for side in result.shape[1:]]
    if fitting != list(image.shape[1:]):
        came = f"a result of {result.shape[1]} x {result.shape[2]} for an input of {image.shape[1]} x {image.shape[2]}"
        raise ShapeError(came, f"{factor} times the height and width of the input")
    return factor


def correlation_of_neighbours(values: Tensor) -> float:
    """Of (C, H, W), one pixel to the right and one below, the mean of both; 0 when there are none or nothing varies."""
    centred = values - values.mean(dim=(1, 2), keepdim=True)
    power = float(centred.square().mean())
    products = [centred[:, 1:] * centred[:, :-1], centred[:, :, 1:] * centred[:, :, :-1]]
    means = [float(product.mean()) for product in products if product.numel() > 0]
    return sum(means) / len(means) / power if means and power > NOTHING**2 else 0.0


def decibels(image: Tensor, target: Tensor) -> float:
    return float(psnr(image[None], target[None]))


def nearness(image: Tensor, target: Tensor) -> str:
    value = decibels(image, target)
    return f"is at {value:.2f} dB of the input" if math.isfinite(value) else "equals the input"


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def size_of(image: Tensor) -> tuple[int, int]:
    return image.shape[1], image.shape[2]


def named(strengths: dict[str, float]) -> str:
    """The strengths that were found, as the end of a line; of noise in levels of 255."""
    words = [
        f"{name} {255 * value:.1f} of 255" if "noise" in name else f"{name} {value:.3g}"
        for name, value in strengths.items()
    ]
    return f"; found: {', '.join(words)}" if words else ""
