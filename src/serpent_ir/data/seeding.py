"""Seeds of everything random in training and measuring: derived from one seed and a position, never from a history."""

from __future__ import annotations

import numpy as np
import torch


def derived_seed(seed: int, *position: int) -> int:
    """A number below 2**63 that depends on `seed` and every element of `position` (all non-negative), well mixed."""
    return int(np.random.SeedSequence([seed, *position]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_for(device: torch.device | str, seed: int, *position: int) -> torch.Generator:
    """A fresh torch generator on `device` that starts from `derived_seed(seed, *position)`."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derived_seed(seed, *position))
    return generator
