"""An ICC colour profile as numbers: the curves and the matrix from coded values to light.

Only what displays, cameras and working spaces have (matrix/TRC and gray profiles; ICC.1:2022, 8.3, 8.4, 10.6, 10.18).
libvips has no way to them that keeps a picture as it is: its `icc_import` and `icc_export` go through interpolated
tables of 16-bit numbers, and clip; see docs/adr/0007-colour-profiles.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

CURVE_POINTS = 65536
INVERSE_TOLERANCE = 0.3 / CURVE_POINTS
CHANNELS = {b"RGB ": 3, b"GRAY": 1}
TABLE_TAGS = (b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1", b"D2B2")  # these go before curves and matrix
PARAMETERS = (1, 3, 4, 5, 7)
"""How many numbers each type of parametric curve has."""

XYZ_TO_SRGB = np.linalg.inv(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
"""XYZ of white D50, as profiles have it, to linear sRGB; IEC 61966-2-1, adapted by Bradford's method."""


class Curve:
    """A curve that rises from [0, 1] to light, by its values at `CURVE_POINTS` even steps, straight between them.

    Below 0 it is continued by its own mirror image (about the value at 0), above 1 as a straight line, so that every
    number has an inverse.
    """

    def __init__(self, values: np.ndarray) -> None:
        """values: float64 (CURVE_POINTS,). Raises ValueError when they do not rise, or hold no light."""
        if not np.isfinite(values).all() or (np.diff(values) < 0).any() or values[-1] - values[0] < 0.1:
            raise ValueError("a curve that does not rise")
        self.steps = np.linspace(0, 1, CURVE_POINTS)
        # Where a curve of few bits is flat, a slope that nobody can see keeps its inverse defined.
        self.values = values + 1e-9 * self.steps
        end = CURVE_POINTS // 64
        self.slope = max((self.values[-1] - self.values[-1 - end]) / (self.steps[-1] - self.steps[-1 - end]), 1e-3)
        # The inverse of most curves is nearly straight between even steps of the root of light, five times as fast to
        # look up. Each value, and one between it and the next, must come back.
        black, white = self.values[[0, -1]]
        self.inverse = np.interp(black + (white - black) * self.steps**2, self.values, self.steps)
        coded = np.concatenate([self.steps, self.steps[:-1] + 0.4 * self.steps[1]])
        self.is_smooth = bool(np.abs(self._looked_up(self.light(coded)) - coded).max() < INVERSE_TOLERANCE)

    def light(self, coded: np.ndarray) -> np.ndarray:
        """float64 -> float64, any shape."""
        size, black = np.abs(coded), self.values[0]
        place = np.minimum(size, 1) * (CURVE_POINTS - 1)
        step = np.minimum(place.astype(np.int64), CURVE_POINTS - 2)
        inside = self.values[step] + (place - step) * (self.values[step + 1] - self.values[step])
        above = inside + self.slope * np.maximum(size - 1, 0)
        return np.copysign(above - black, coded) + black

    def coded(self, light: np.ndarray) -> np.ndarray:
        """The inverse of `light`."""
        black, white = self.values[0], self.values[-1]
        size = np.abs(light - black) + black
        inside = self._looked_up(size) if self.is_smooth else np.interp(size, self.values, self.steps)
        above = inside + np.maximum(size - white, 0) / self.slope
        return np.copysign(above, light - black)

    def _looked_up(self, light: np.ndarray) -> np.ndarray:
        """`coded` of what is not below black, 1 above white, from the table of the inverse."""
        black, white = self.values[0], self.values[-1]
        place = np.sqrt(np.clip((light - black) / (white - black), 0, 1)) * (CURVE_POINTS - 1)
        step = np.minimum(place.astype(np.int64), CURVE_POINTS - 2)
        return self.inverse[step] + (place - step) * (self.inverse[step + 1] - self.inverse[step])


@dataclass(frozen=True, eq=False)
class Profile:
    """channels: 3 (RGB) or 1 (gray). curves: one a channel. matrix: (channels, channels) float64, from their light to
    that of sRGB, or to gray light in [0, 1]. Without curves the profile is made of tables.
    """

    channels: int
    curves: tuple[Curve, ...] | None = None
    matrix: np.ndarray | None = None


def parse_profile(content: bytes) -> Profile:
    """Raises ValueError when `content` is damaged, or no profile of RGB or gray."""
    try:
        return parsed(content)
    except (struct.error, IndexError) as error:
        raise ValueError("a damaged colour profile") from error


def parsed(content: bytes) -> Profile:
    space, connection, signature = content[16:20], content[20:24], content[36:40]
    if signature != b"acsp" or space not in CHANNELS:
        raise ValueError("not a profile of RGB or gray")
    channels, tags = CHANNELS[space], tags_of(content)
    names = (b"k",) if channels == 1 else (b"r", b"g", b"b")
    needed = [name + b"TRC" for name in names] + ([name + b"XYZ" for name in names] if channels == 3 else [])
    if connection != b"XYZ " or any(tag in tags for tag in TABLE_TAGS) or not all(tag in tags for tag in needed):
        return Profile(channels)
    try:
        curves = tuple(Curve(curve_of(tags[name + b"TRC"])) for name in names)
    except ValueError:
        return Profile(channels)
    if channels == 1:
        return Profile(1, curves, np.ones((1, 1)))
    columns = np.stack([np.array(struct.unpack(">3i", tags[name + b"XYZ"][8:20])) / 65536 for name in names], axis=1)
    matrix = XYZ_TO_SRGB @ columns
    if np.linalg.cond(matrix) > 1e4:
        raise ValueError("primaries that span no space of colours")
    return Profile(3, curves, matrix)


def tags_of(content: bytes) -> dict[bytes, bytes]:
    """Signature -> content of each tag."""
    (count,) = struct.unpack_from(">I", content, 128)
    if count > 200:
        raise ValueError(f"{count} tags")
    tags = {}
    for index in range(count):
        name, offset, size = struct.unpack_from(">4sII", content, 132 + 12 * index)
        if offset + size > len(content):
            raise ValueError("a tag beyond the end")
        tags[name] = content[offset : offset + size]
    return tags


def curve_of(tag: bytes) -> np.ndarray:
    """float64 (CURVE_POINTS,): a `curv` or `para` tag at even steps of [0, 1]. Raises ValueError for any other."""
    steps = np.linspace(0, 1, CURVE_POINTS)
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return steps
        if count == 1:
            return steps ** (struct.unpack_from(">H", tag, 12)[0] / 256)
        if 12 + 2 * count > len(tag):
            raise ValueError("a curve beyond the end of its tag")
        values = np.frombuffer(tag, ">u2", count, 12) / 65535
        return np.interp(steps, np.linspace(0, 1, count), values)
    if tag[:4] != b"para":
        raise ValueError(f"a curve of type {tag[:4]!r}")
    kind = struct.unpack_from(">H", tag, 8)[0]
    if kind >= len(PARAMETERS):
        raise ValueError(f"a parametric curve of type {kind}")
    numbers = [number / 65536 for number in struct.unpack_from(f">{PARAMETERS[kind]}i", tag, 12)]
    return parametric(steps, *numbers)


def parametric(
    x: np.ndarray,
    gamma: float,
    a: float = 1,
    b: float = 0,
    c: float | None = None,
    d: float | None = None,
    e: float | None = None,
    f: float = 0,
) -> np.ndarray:
    """(a x + b)^gamma + e from d on, c x + f before; of types 1 and 2 c is the value there, and d is -b / a."""
    if a <= 0 or gamma <= 0:
        raise ValueError("a curve that does not rise")
    with np.errstate(over="ignore"):
        power = np.maximum(a * x + b, 0) ** gamma
    if d is None:  # types 0, 1 and 2: constant before -b / a
        return power + (c or 0)
    return np.where(x >= d, power + (e or 0), (c or 0) * x + f)
