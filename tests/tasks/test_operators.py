"""Degradations of one's own: lists of operators as data."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from serpent_ir import tasks
from serpent_ir.errors import RangeError, SerpentError, UnknownNameError
from serpent_ir.tasks import AdditiveGaussianNoise, GaussianBlur, Jpeg
from serpent_ir.tasks.chain import Chain, OneOf, Sometimes
from serpent_ir.tasks.operators import OPERATORS

READING = ("poisson_noise", "rescale", "jpeg")
"""Operators that read an image or a strength as numbers, which is slow or impossible on the meta device."""


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


class Plus:
    """Adds a number, and counts the images it was given."""

    def __init__(self, amount: float) -> None:
        self.amount, self.images = amount, 0

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        self.images += len(image)
        return image + self.amount


def test_compose() -> None:
    text = '[{"operator": "gaussian_blur", "sigma": [0.5, 2], "taps": 21}, {"operator": "jpeg", "quality": [30, 90]}]'
    task = tasks.compose("mine", json.loads(text))
    clean, generator = torch.rand(3, 3, 20, 24), seeded()
    expected = Jpeg((30, 90))(GaussianBlur(21, (0.5, 2.0))(clean, generator), generator)
    assert torch.equal(task(clean, seeded()), expected)
    assert (task.name, task.enlarge, task.channels) == ("mine", 1, 3)
    assert tasks.compose("again", task.options["operators"]).options == task.options


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_works_with_its_defaults_and_is_reproducible(name: str) -> None:
    task, images = tasks.compose("mine", [{"operator": name}]), torch.rand(2, 3, 11, 8)
    degraded = task(images, seeded())
    assert degraded.shape[2:] == (11, 8) and torch.equal(degraded, task(images, seeded()))
    assert not torch.equal(degraded[:, :3], images)


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in READING])
def test_with_a_cpu_generator_nothing_is_float64_on_the_device_of_the_images(name: str) -> None:
    """Apple's MPS has none. The meta device stands for it: nothing can be drawn on it, but no values be read either."""

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
            results = function(*arguments, **(settings or {}))
            for one in results if isinstance(results, tuple | list) else [results]:
                if isinstance(one, torch.Tensor) and one.device.type == "meta":
                    assert one.dtype not in (torch.float64, torch.complex128), function
            return results

    fixed: dict[str, Any] = {"gaussian_blur": {"sigma": 2}, "gaussian_noise": {"sigma": 0.1}}.get(name, {})
    varying = {key: [1, 1] for key, option in OPERATORS[name].OPTIONS.items() if option.varies and key != "missing"}
    for options in (fixed, varying):
        task = tasks.compose("mine", [{"operator": "motion_blur", "presence": 0.5}, {"operator": name, **options}])
        with Watch():
            made = task.damaged(torch.empty(20, 3, 12, 9, device="meta"), seeded())
        assert made.device.type == "meta" and made.dtype == torch.float32


def test_sometimes_and_one_of_reach_their_share_of_the_images_and_no_other() -> None:
    images = torch.rand(1000, 3, 1, 1)
    plus = Plus(1.0)
    changed = (Sometimes(plus, 0.3)(images, seeded()) != images)[:, 0, 0, 0]
    assert 250 < changed.sum() == plus.images < 350
    results = OneOf([Plus(1.0), Plus(2.0), Chain([Plus(1.5), Plus(1.5)])])(images, seeded()) - images
    counts = [(results - amount).abs().lt(1e-5).flatten(1).all(dim=1).sum().item() for amount in (1, 2, 3)]
    assert min(counts) > 280 and sum(counts) == 1000
    assert torch.equal(Sometimes(plus, 0.0)(images), images) and torch.equal(Sometimes(plus, 1.0)(images), images + 1)


def test_nested_lists() -> None:
    blur, noise = {"operator": "gaussian_blur", "sigma": 1}, {"operator": "gaussian_noise", "sigma": 0.1}
    entries = [{"chain": [blur, {"one_of": [noise]}], "presence": 1.0}]
    clean = torch.rand(2, 3, 9, 9)
    degraded = tasks.compose("mine", entries)(clean, seeded())
    generator = seeded()
    torch.rand(4, generator=generator, dtype=torch.float64)  # what the presence and the choice take
    torch.testing.assert_close(degraded, AdditiveGaussianNoise(0.1)(GaussianBlur(61, 1.0)(clean), generator))


def test_downscaling_decides_how_much_is_enlarged() -> None:
    task = tasks.compose("mine", [{"operator": "downscale", "factor": 2}, {"operator": "downscale", "factor": 3}])
    assert task.enlarge == 6
    assert task.damaged(torch.rand(1, 3, 13, 12)).shape == (1, 3, 3, 2)
    assert task(torch.rand(1, 3, 13, 12)).shape == (1, 3, 13, 12)


@pytest.mark.parametrize("depth", [20, 21, 5000])
def test_groups_in_groups(depth: int) -> None:
    entries: list[Any] = [{"operator": "jpeg", "quality": 30}]
    for level in range(depth):
        entries = [{"chain" if level % 2 else "one_of": entries}]
    if depth > 20:
        with pytest.raises(RangeError, match="task 'mine': groups of operators lie more than 20 deep"):
            tasks.compose("mine", entries)
    else:
        assert torch.equal(tasks.compose("mine", entries)(clean := torch.rand(1, 3, 8, 8)), Jpeg(30)(clean))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "at least one"),
        ("jpeg", "at least one"),
        ([{"operator": "jpeg"}, 7], "operator 2: 7"),
        ([{"quality": 5}], "one of the keys"),
        ([{"operator": "jpeg", "one_of": []}], "one of the keys"),
        ([{"operator": "fog"}], "unknown operator 'fog'; expected one of gaussian_blur"),
        ([{"operator": "jpeg", "quality": 0}], r"operator 1 \(jpeg\): option quality is 0; expected a whole number"),
        ([{"operator": "jpeg", "quality": [90, 30]}], "lowest first"),
        (
            [{"operator": "jpeg", "strength": 1}],
            r"operator 1 \(jpeg\) has no option 'strength'; expected one of quality",
        ),
        (
            [{"operator": "gaussian_blur", "taps": 4}],
            "operator 1: Gaussian blur got a kernel of 4 taps; expected a positive odd",
        ),
        ([{"operator": "jpeg", "presence": 2}], "presence is 2; expected a number from 0.0 to 1.0"),
        ([{"one_of": [{"operator": "jpeg"}, {"operator": "fog"}]}], r"operator 1 \(one_of\), operator 2: unknown"),
        ([{"chain": [{"operator": "jpeg"}], "taps": 3}], r"\(chain\) has no option 'taps'"),
        ([{"operator": "downscale", "presence": 0.5}], r"\(downscale\) has a presence"),
        ([{"one_of": [{"operator": "downscale"}]}], "outermost"),
        ([{"operator": "holes"}, {"operator": "jpeg"}], "holes last"),
        ([{"operator": "downscale"}, {"operator": "holes"}], "at full size"),
    ],
)
def test_what_cannot_be_is_refused_and_its_place_named(entries: Any, message: str) -> None:
    with pytest.raises((RangeError, UnknownNameError), match=message) as caught:
        tasks.compose("mine", entries)
    assert isinstance(caught.value, SerpentError)
