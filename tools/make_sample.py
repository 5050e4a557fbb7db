"""Draw the sample that `make restore` restores: a ray-traced still life, degraded as the task `deblur` does.

    python tools/make_sample.py [--clean FILE] [--degraded FILE]

The picture is computed (spheres, a tiled floor, hills and clouds; Whitted 1980), so it is nobody's and can be shipped.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from serpent_ir import tasks
from serpent_ir.images import Picture, write_image

WIDTH, HEIGHT = 384, 256
SAMPLES = 4  # rays per pixel along each axis
BOUNCES = 3
SEED = 0

EYE = np.array([0.0, 1.75, -6.4])
LOOK_AT = np.array([0.0, 1.02, 0.0])
FIELD_OF_VIEW = np.radians(46.0)
SUN = np.array([-0.55, 0.72, -0.42]) / np.linalg.norm([-0.55, 0.72, -0.42])
HAZE = np.array([0.66, 0.76, 0.88])

Array = np.ndarray


@dataclass(frozen=True)
class Sphere:
    centre: tuple[float, float, float]
    radius: float
    pattern: str
    colour: tuple[float, float, float]
    second: tuple[float, float, float] = (1.0, 1.0, 1.0)
    mirror: float = 0.06
    gloss: float = 60.0


SPHERES = (
    Sphere((-1.45, 0.85, 0.4), 0.85, "stripes", (0.80, 0.10, 0.07), (0.96, 0.93, 0.86)),
    Sphere((0.35, 1.05, 1.3), 1.05, "plain", (0.90, 0.90, 0.92), mirror=0.82, gloss=400.0),
    Sphere((1.75, 0.70, -0.1), 0.70, "marble", (0.07, 0.24, 0.48), (0.82, 0.87, 0.90)),
    Sphere((0.30, 0.42, -1.2), 0.42, "dots", (0.97, 0.72, 0.06), (0.15, 0.12, 0.10)),
    Sphere((-0.75, 0.27, -1.75), 0.27, "plain", (0.10, 0.50, 0.22), gloss=120.0),
    Sphere((1.15, 0.22, -1.95), 0.22, "stripes", (0.45, 0.12, 0.50), (0.95, 0.80, 0.55)),
    Sphere((-2.55, 0.38, -0.85), 0.38, "marble", (0.42, 0.20, 0.09), (0.93, 0.76, 0.50)),
    Sphere((2.75, 0.45, 1.5), 0.45, "plain", (0.93, 0.36, 0.08)),
)


def value_noise(x: Array, y: Array, octaves: int) -> Array:
    """Sum of smooth random fields, each of half the size and strength of the one before; about 0..1."""
    total, strength, norm = np.zeros_like(x), 1.0, 0.0
    for octave in range(octaves):
        column, row = np.floor(x), np.floor(y)
        along, down = x - column, y - row
        along, down = along * along * (3 - 2 * along), down * down * (3 - 2 * down)

        def corner(dx: int, dy: int, column: Array = column, row: Array = row, octave: int = octave) -> Array:
            hashed = np.sin((column + dx) * 127.1 + (row + dy) * 311.7 + octave * 74.7) * 43758.5453
            return hashed - np.floor(hashed)

        top = corner(0, 0) * (1 - along) + corner(1, 0) * along
        bottom = corner(0, 1) * (1 - along) + corner(1, 1) * along
        total += strength * (top * (1 - down) + bottom * down)
        norm += strength
        x, y, strength = 2.03 * x + 17.0, 2.03 * y + 5.0, strength / 2
    return total / norm


def blend(first: Array, second: Array, amount: Array) -> Array:
    return first + (second - first) * amount[:, None]


def smooth_step(low: float, high: float, x: Array) -> Array:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def sky(direction: Array) -> Array:
    """Colour of rays (N, 3) that hit nothing: sky with clouds and a sun, and hills with a tree line at the horizon."""
    height = direction[:, 1]
    colour = blend(HAZE, np.array([0.09, 0.25, 0.60]), np.clip(height, 0, 1) ** 0.55)
    reach = 1 / (np.abs(height) + 0.12)
    clouds = value_noise(direction[:, 0] * reach * 1.6 + 3.0, direction[:, 2] * reach * 1.6, 5)
    colour = blend(colour, np.array([0.99, 0.98, 0.96]), 0.9 * smooth_step(0.48, 0.70, clouds))
    colour += np.clip(direction @ SUN, 0, 1)[:, None] ** 600 * np.array([4.0, 3.6, 2.8])
    azimuth = np.arctan2(direction[:, 0], direction[:, 2])
    for base, roughness, scale, offset, near in (
        (0.055, 0.11, 3.0, 1.0, np.array([0.30, 0.41, 0.55])),
        (0.020, 0.09, 5.0, 9.0, np.array([0.13, 0.24, 0.19])),
        (-0.015, 0.06, 22.0, 4.0, np.array([0.04, 0.10, 0.03])),
    ):
        ridge = base + roughness * value_noise(azimuth * scale + offset, np.zeros_like(azimuth), 6)
        leaves = 0.75 + 0.5 * value_noise(azimuth * 260.0, height * 260.0, 3)
        colour = np.where((height < ridge)[:, None], near * leaves[:, None], colour)
    return colour


def floor_colour(point: Array) -> Array:
    """Terracotta and cream tiles with grain and darker joints."""
    x, z = point[:, 0] * 1.1 + 0.3, point[:, 2] * 1.1
    tile = (np.floor(x) + np.floor(z)) % 2
    colour = blend(np.array([0.66, 0.30, 0.17]), np.array([0.88, 0.82, 0.70]), tile)
    shade = value_noise(np.floor(x) * 3.7, np.floor(z) * 5.3, 1)
    grain = value_noise(x * 9.0, z * 9.0, 5)
    colour = colour * (0.78 + 0.2 * shade + 0.3 * grain)[:, None]
    joint = np.minimum(np.minimum(x % 1, 1 - x % 1), np.minimum(z % 1, 1 - z % 1))
    return colour * (0.45 + 0.55 * smooth_step(0.012, 0.03, joint))[:, None]


def sphere_colour(sphere: Sphere, normal: Array) -> Array:
    first, second = np.array(sphere.colour), np.array(sphere.second)
    turned = normal @ np.array([[0.87, 0.30, -0.39], [-0.20, 0.94, 0.27], [0.45, -0.16, 0.88]])
    longitude, latitude = np.arctan2(turned[:, 0], -turned[:, 2]), np.arcsin(np.clip(turned[:, 1], -1, 1))
    if sphere.pattern == "stripes":
        return blend(first, second, (np.floor(longitude * 6 / np.pi) % 2) * (np.abs(latitude) < 1.35))
    if sphere.pattern == "marble":
        veins = value_noise(longitude * 2.2, latitude * 3.0, 6)
        return blend(first, second, np.abs(np.sin(9 * veins + 3 * latitude)) ** 2)
    if sphere.pattern == "dots":
        row = np.floor(latitude * 9 / np.pi)
        across = (longitude * 9 / np.pi * np.cos((row + 0.5) * np.pi / 9) + row / 2) % 1 - 0.5
        return blend(first, second, (across**2 + (latitude * 9 / np.pi - row - 0.5) ** 2 < 0.085).astype(float))
    return np.broadcast_to(first, normal.shape).copy()


def hit_sphere(sphere: Sphere, origin: Array, direction: Array) -> Array:
    """Distance along each ray to the sphere, infinite where it is missed."""
    offset = origin - np.array(sphere.centre)
    half = (offset * direction).sum(1)
    root = half**2 - (offset**2).sum(1) + sphere.radius**2
    distance = -half - np.sqrt(np.maximum(root, 0))
    return np.where((root > 0) & (distance > 1e-4), distance, np.inf)


def light_reaching(point: Array, random: np.random.Generator) -> Array:
    """Share of the sun's disc seen from each point: one shadow ray to a random place of the disc."""
    towards = SUN + 0.035 * random.standard_normal(point.shape)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    blocked = np.zeros(len(point), dtype=bool)
    for sphere in SPHERES:
        blocked |= np.isfinite(hit_sphere(sphere, point, towards))
    return 1.0 - blocked


def nearness_to_spheres(point: Array) -> Array:
    """Share of the sky that the spheres hide from a point of the floor (the soft dark rim under each)."""
    hidden = np.zeros(len(point))
    for sphere in SPHERES:
        offset = np.array(sphere.centre) - point
        distance = np.linalg.norm(offset, axis=1)
        hidden += np.clip(offset[:, 1] / distance, 0, 1) * (sphere.radius / distance) ** 2
    return np.clip(hidden, 0, 0.85)


def trace(origin: Array, direction: Array, bounces: int, random: np.random.Generator) -> Array:
    """Linear RGB (N, 3) that comes back along each ray."""
    distances = np.stack([hit_sphere(sphere, origin, direction) for sphere in SPHERES])
    nearest, distance = distances.argmin(0), distances.min(0)
    with np.errstate(divide="ignore"):
        to_floor = np.where(direction[:, 1] < 0, -origin[:, 1] / direction[:, 1], np.inf)
    on_floor = (to_floor < distance) & (to_floor < 28)
    distance = np.where(on_floor, to_floor, distance)

    result = sky(direction)
    for which, sphere in [(-1, None), *enumerate(SPHERES)]:
        chosen = np.flatnonzero(on_floor if sphere is None else ~on_floor & (nearest == which) & np.isfinite(distance))
        if not len(chosen):
            continue
        along = direction[chosen]
        point = origin[chosen] + distance[chosen, None] * along
        if sphere is None:
            normal = np.broadcast_to([0.0, 1.0, 0.0], point.shape)
            colour, mirror, gloss = floor_colour(point), 0.05, 25.0
            ambient = 1 - nearness_to_spheres(point)
        else:
            normal = (point - np.array(sphere.centre)) / sphere.radius
            colour, mirror, gloss = sphere_colour(sphere, normal), sphere.mirror, sphere.gloss
            ambient = 0.62 + 0.38 * normal[:, 1]
        point = point + 1e-3 * normal
        facing = np.clip(normal @ SUN, 0, 1) * light_reaching(point, random)
        reflected = along - 2 * (along * normal).sum(1, keepdims=True) * normal
        lit = colour * (1.05 * facing[:, None] * np.array([1.0, 0.95, 0.85]) + 0.30 * ambient[:, None] * HAZE)
        lit += 0.8 * (facing > 0)[:, None] * np.clip(reflected @ SUN, 0, 1)[:, None] ** gloss
        if bounces:
            share = mirror + (1 - mirror) * (1 - np.clip(-(along * normal).sum(1), 0, 1)) ** 5 * 0.5
            lit = blend(lit, trace(point, reflected, bounces - 1, random), share)
        far = smooth_step(9, 28, distance[chosen]) if sphere is None else np.zeros(len(chosen))
        result[chosen] = blend(lit, np.array([0.16, 0.24, 0.10]), far)
    return result


def draw() -> torch.Tensor:
    """The clean picture, float32 (3, HEIGHT, WIDTH), sRGB in [0, 1]."""
    random = np.random.default_rng(SEED)
    forward = (LOOK_AT - EYE) / np.linalg.norm(LOOK_AT - EYE)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    up = np.cross(forward, right)
    rows, columns = np.mgrid[0 : HEIGHT * SAMPLES, 0 : WIDTH * SAMPLES]
    across = ((columns + random.random(columns.shape)) / (WIDTH * SAMPLES) - 0.5) * 2 * np.tan(FIELD_OF_VIEW / 2)
    down = (0.5 - (rows + random.random(rows.shape)) / (HEIGHT * SAMPLES)) * 2 * np.tan(FIELD_OF_VIEW / 2)
    down *= HEIGHT / WIDTH
    direction = forward + across.reshape(-1, 1) * right + down.reshape(-1, 1) * up
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    linear = trace(np.broadcast_to(EYE, direction.shape), direction, BOUNCES, random)
    linear = np.clip(linear, 0, 1).reshape(HEIGHT, SAMPLES, WIDTH, SAMPLES, 3).mean((1, 3))
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return torch.from_numpy(coded).permute(2, 0, 1).float().contiguous()


def main() -> None:
    sample = Path(__file__).parent.parent / "src/serpent_ir/cli/sample.png"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=Path, help="also write the picture before the degradation")
    parser.add_argument("--degraded", type=Path, default=sample, help="where the sample goes (default: %(default)s)")
    arguments = parser.parse_args()
    clean = draw()
    if arguments.clean:
        write_image(Picture(clean), arguments.clean)
    generator = torch.Generator().manual_seed(SEED)
    degraded = tasks.create("deblur")(clean[None], generator=generator)
    write_image(Picture(tasks.quantize(degraded)[0]), arguments.degraded)
    print(f"{arguments.degraded}: {arguments.degraded.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
