from __future__ import annotations

import torch

from serpent_ir.data import derived_seed, generator_for


def test_positions_have_seeds_of_their_own() -> None:
    seeds = {derived_seed(seed, step, stream) for seed in range(4) for step in range(50) for stream in range(4)}
    assert len(seeds) == 4 * 50 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_convention_derived_seeds_never_change() -> None:
    """Resumed runs and published measurements depend on these values."""
    assert derived_seed(0, 0) == 7896617691693857887
    assert derived_seed(1, 2, 3) == 6498626229777268288


def test_generator_starts_from_the_derived_seed() -> None:
    expected = torch.rand(4, generator=torch.Generator().manual_seed(derived_seed(3, 4)))
    assert torch.equal(torch.rand(4, generator=generator_for("cpu", 3, 4)), expected)
