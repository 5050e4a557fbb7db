from __future__ import annotations

import pytest
import torch

from serpent_ir import tasks
from serpent_ir.tasks.repeat import repeatable, varying_strengths, with_strength

IMAGE = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("deblur", True),
        ("denoise", True),
        ("jpeg", True),
        ("sr2", True),
        ("motion-deblur", False),
        ("photo", False),
        ("inpaint", False),
    ],
)
def test_what_can_be_done_once_more(name: str, known: bool) -> None:
    assert (repeatable(tasks.create(name)) is not None) == known


def test_groups_that_always_happen_are_unfolded() -> None:
    blur, noise = {"operator": "gaussian_blur", "sigma": 1}, {"operator": "gaussian_noise"}
    inner = {"operator": "defocus_blur", "presence": 1}
    found = repeatable(tasks.compose("mine", [{"chain": [blur, inner], "presence": 1}, noise]))
    assert found is not None
    kinds = [type(operator) for operator in found.operators]
    assert kinds == [tasks.GaussianBlur, tasks.DefocusBlur, tasks.AdditiveGaussianNoise]
    for entry in ({**blur, "presence": 0.5}, {"one_of": [blur]}, {"operator": "anisotropic_blur"}):
        assert repeatable(tasks.compose("mine", [entry, noise])) is None


def test_strengths_that_vary_are_fixed_one_by_one() -> None:
    task = tasks.compose(
        "mine",
        [
            {"operator": "gaussian_blur", "sigma": [0.5, 2]},
            {"operator": "downscale", "factor": 2},
            {"operator": "jpeg", "quality": [20, 80]},
            {"operator": "gaussian_noise", "sigma": 0.1},
        ],
    )
    found = varying_strengths(task)
    assert [(one.place, one.operator, one.option, one.lowest, one.highest, one.whole) for one in found] == [
        (0, "gaussian_blur", "sigma", 0.5, 2, False),
        (2, "jpeg", "quality", 20, 80, True),
    ]
    fixed = with_strength(with_strength(task, found[0], 1.25), found[1], 40)
    assert varying_strengths(fixed) == [] and len(varying_strengths(task)) == 2
    by_hand = tasks.Jpeg(40)(tasks.Downscale(2)(tasks.GaussianBlur(61, 1.25)(IMAGE)))
    torch.testing.assert_close(fixed.without_noise().damaged(IMAGE), by_hand)


@pytest.mark.parametrize("name", ["deblur", "sr4"])
def test_without_noise_is_the_mean_over_noise(name: str) -> None:
    quiet = tasks.create(name).without_noise()
    assert torch.equal(quiet.damaged(IMAGE), tasks.create(name, noise_sigma=0.0).damaged(IMAGE))
    assert quiet.enlarge == tasks.create(name).enlarge
    photons = tasks.compose("mine", [{"operator": "poisson_noise"}, {"operator": "gaussian_blur"}])
    assert [type(one) for one in photons.without_noise().operators] == [tasks.GaussianBlur]
