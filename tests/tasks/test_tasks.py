"""What is true of every registered task, and what each of them is."""

from __future__ import annotations

import pytest
import torch

from serpent_ir import tasks
from serpent_ir.data import generated_photographs
from serpent_ir.metrics import psnr
from serpent_ir.tasks import AdditiveGaussianNoise, Downscale, Holes, Jpeg, MotionBlur, enlarge

ALL = tasks.list_tasks()


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ALL)
def test_any_size_reproducible_and_in_two_steps(name: str) -> None:
    task = tasks.create(name)
    for size in ((1, 1), (1, 7), (21, 30)):
        clean = torch.rand(3, 3, *size)
        kept = clean.clone()
        degraded = task(clean, seeded())
        assert degraded.shape == (3, task.channels, *size) and degraded.dtype == torch.float32
        assert torch.isfinite(degraded).all() and torch.equal(clean, kept)
        assert torch.equal(degraded, task(clean, seeded()))
        damaged = task.damaged(clean, seeded())
        assert damaged.shape == (3, task.channels, -(-size[0] // task.enlarge), -(-size[1] // task.enlarge))
        assert torch.equal(task.prepared(damaged, size), degraded)
    assert not torch.equal(degraded, task(clean, seeded(2)))


@pytest.mark.parametrize("name", ["deblur", "denoise", "inpaint", "motion-deblur", "sr2", "sr4", "sr8"])
def test_adjoint_of_the_whole_linear_part(name: str) -> None:
    """<A x, y> = <x, A' y>, A x + b being what the operators make of x, with the generator as each of them found it."""
    operators, size = tasks.create(name).operators, (21, 30)
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=seeded(2))

    def damaged(image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        generator, states = seeded(), []
        for operator in operators:
            states.append(generator.get_state())
            image = operator(image, generator)
        return image, states

    made, states = damaged(x)
    linear = made - damaged(torch.zeros_like(x))[0]
    y = torch.randn(linear.shape, dtype=torch.float64, generator=seeded(3))
    turned = y
    for operator, state in reversed(list(zip(operators, states, strict=True))):
        if isinstance(operator, AdditiveGaussianNoise):
            continue  # adds what does not depend on x
        generator = torch.Generator()
        generator.set_state(state)
        settings = {"size": size} if isinstance(operator, Downscale) else {}
        turned = operator.adjoint(turned, generator, **settings)
    left, right = (linear * y).sum(), (x * turned).sum()
    assert turned.shape == x.shape and left.abs() > 0.1 and abs(left - right) < 1e-11 * x.numel()


def test_definitions() -> None:
    clean = torch.rand(2, 3, 20, 21)
    generator = seeded()
    expected = AdditiveGaussianNoise(0.05)(Downscale(8)(clean), generator)
    assert torch.equal(tasks.create("sr8")(clean, seeded()), enlarge(expected, 8, (20, 21)))
    generator = seeded()
    expected = AdditiveGaussianNoise(0.01)(MotionBlur((5.0, 25.0))(clean, generator), generator)
    assert torch.equal(tasks.create("motion-deblur")(clean, seeded()), expected)
    assert torch.equal(tasks.create("jpeg")(clean, seeded()), Jpeg((10, 90))(clean, seeded()))
    assert torch.equal(tasks.create("jpeg", quality=30)(clean), Jpeg(30)(clean))
    assert torch.equal(tasks.create("inpaint")(clean, seeded()), Holes((0.05, 0.4))(clean, seeded()))


def test_photo_leaves_a_share_of_the_images_as_they_are_and_is_not_hopeless() -> None:
    photograph = generated_photographs(1, 0)[0].pixels[:, :32, :32].float().div(255)
    clean = photograph.expand(400, -1, -1, -1)
    damage = tasks.create("photo")(clean, seeded(0))
    same = (damage == clean).flatten(1).all(dim=1)
    assert 0.07 < same.float().mean() < 0.14
    scores = psnr(damage[~same], clean[~same])
    assert 15 < scores.quantile(0.05) < scores.median() < 25  # in dB, of an image that is all edges


def test_photo_with_one_kind_only() -> None:
    clean = torch.rand(4, 3, 24, 24)
    none = {"blur": 0, "defocus": 0, "motion": 0, "scale": 1, "noise": 0, "presence": 0}
    assert torch.equal(tasks.create("photo", **none)(clean), clean)
    compressed = tasks.create("photo", **{**none, "presence": 1}, quality=95)(clean, seeded())
    assert torch.equal(compressed, Jpeg(95)(clean))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ALL)
def test_on_a_gpu_a_cpu_generator_gives_the_same_damage(name: str) -> None:
    clean, task = torch.rand(3, 3, 21, 30), tasks.create(name)
    degraded = task(clean.cuda(), seeded())
    torch.testing.assert_close(degraded.cpu(), task(clean, seeded()), rtol=0, atol=0.05 if name == "photo" else 1e-4)
    own = task(clean.cuda(), torch.Generator("cuda").manual_seed(1))
    assert torch.equal(own, task(clean.cuda(), torch.Generator("cuda").manual_seed(1)))
