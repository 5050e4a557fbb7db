"""ICC profiles made of numbers, to test with: version 2 or 4, curves and a matrix, or one gray curve, white D50."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])
D65, D50_CHROMATICITY = (0.3127, 0.3290), (0.3457, 0.3585)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
PROPHOTO = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))


def fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def tag(kind: bytes, body: bytes) -> bytes:
    content = kind + b"\0" * 4 + body
    return content + b"\0" * (-len(content) % 4)


def power(exponent: float) -> bytes:
    return tag(b"curv", struct.pack(">IH", 1, round(exponent * 256)))


def table(function: Callable[[float], float], points: int) -> bytes:
    values = [round(65535 * function(index / (points - 1))) for index in range(points)]
    return tag(b"curv", struct.pack(f">I{points}H", points, *values))


def parametric(kind: int, *numbers: float) -> bytes:
    return tag(b"para", struct.pack(">HH", kind, 0) + fixed(*numbers))


def srgb_curve(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


LINEAR = tag(b"curv", struct.pack(">I", 0))
SRGB_PARAMETRIC = parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def columns(primaries: tuple[tuple[float, float], ...], white: tuple[float, float] = D65) -> np.ndarray:
    """(3, 3), from linear red, green, blue to XYZ of white D50, by Bradford's method."""
    directions = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    light = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapted = np.linalg.inv(cones) @ np.diag((cones @ D50) / (cones @ light)) @ cones
    return adapted @ (directions * np.linalg.solve(directions, light))


def profile(curve: bytes, matrix: np.ndarray | None = None, **more: bytes) -> bytes:
    """A profile of RGB with a matrix as `columns` gives it, or of gray without one. more: further tags."""
    tags = {b"wtpt": tag(b"XYZ ", fixed(*D50)), b"cprt": tag(b"text", b"none\0")}
    tags[b"desc"] = tag(b"desc", struct.pack(">I", 5) + b"test\0" + b"\0" * 78)
    if matrix is None:
        tags[b"kTRC"] = curve
    else:
        for index, name in enumerate((b"r", b"g", b"b")):
            tags[name + b"XYZ"], tags[name + b"TRC"] = tag(b"XYZ ", fixed(*matrix[:, index])), curve
    tags.update({name.encode(): content for name, content in more.items()})
    place, names, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        names += name + struct.pack(">II", place + len(body), len(content))
        body += content
    version = 0x04000000 if curve[:4] == b"para" else 0x02400000
    space = b"GRAY" if matrix is None else b"RGB "
    size = 132 + len(names) + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s", size, version, b"mntr", space, b"XYZ ", b"acsp").ljust(68, b"\0")
    return (head + fixed(*D50)).ljust(128, b"\0") + struct.pack(">I", len(tags)) + names + body


DISPLAY_P3 = profile(SRGB_PARAMETRIC, columns(P3))
ADOBE_RGB = profile(power(2.19921875), columns(ADOBE))
PROPHOTO_RGB = profile(power(1.8), columns(PROPHOTO, D50_CHROMATICITY))
SRGB_TABLE = profile(table(srgb_curve, 1024), columns(SRGB))
GRAY_GAMMA = profile(power(2.2))
GRAY_DOT_GAIN = profile(table(lambda value: 0.75 * value**1.75 + 0.25 * value**3, 256))
TABLES = profile(SRGB_PARAMETRIC, columns(P3), A2B0=tag(b"mft2", b"\0" * 44))
