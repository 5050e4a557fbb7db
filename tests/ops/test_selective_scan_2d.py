"""The map in four directions: every backend against the oracle, output and all gradients."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from tolerances import RELATIVE, relative_error
from torch import Tensor

from serpent_ir.ops import native, reference, selective_scan_2d

Problem = Callable[..., list[Tensor]]
needs_native = pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("directions", [1, 2, 4])
@pytest.mark.parametrize("states", [1, 6, 16, 43])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (13, 5)])
def test_agrees_with_the_oracle(
    backend: str, nan_filled_memory: None, agree: Callable[..., None], map_problem: Problem,
    height: int, width: int, states: int, directions: int,
) -> None:  # fmt: skip
    arguments = map_problem(2, height, width, 21, directions, states, rank=3)
    agree(selective_scan_2d, reference.selective_scan_2d, arguments, backend=backend)


def test_agrees_with_the_channels_of_the_first_scale(
    backend: str, nan_filled_memory: None, agree: Callable[..., None], map_problem: Problem
) -> None:
    agree(selective_scan_2d, reference.selective_scan_2d, map_problem(1, 16, 20, 64, 4, 6), backend=backend)


def test_double_precision_and_gradcheck(
    backend: str, nan_filled_memory: None, agree: Callable[..., None], map_problem: Problem
) -> None:
    arguments = map_problem(2, 9, 9, 5, 4, 3, dtype=torch.float64)
    agree(selective_scan_2d, reference.selective_scan_2d, arguments, backend=backend)
    leaves = [a.clone().requires_grad_() for a in map_problem(1, 2, 3, 2, 4, 2, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *a: selective_scan_2d(*a, backend=backend), leaves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs(
    backend: str, agree: Callable[..., None], map_problem: Problem, dtype: torch.dtype
) -> None:
    """Output and gradients, with parameters of half precision too; then with parameters in float32."""
    arguments = [a.to(dtype) for a in map_problem(1, 11, 6, 16, 4, 6)]
    agree(selective_scan_2d, reference.selective_scan_2d, arguments, backend=backend)
    leaves = [a if position < 4 else a.float().requires_grad_() for position, a in enumerate(arguments)]
    y = selective_scan_2d(*leaves, backend=backend)
    assert y.dtype == dtype and relative_error(y, reference.selective_scan_2d(*leaves)) < RELATIVE[dtype]
    gradients = torch.autograd.grad(y, leaves[4:], torch.ones_like(y))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


def test_first_direction_sees_only_what_lies_before(backend: str, map_problem: Problem) -> None:
    arguments = map_problem(1, 4, 5, 8, 1, 3)
    before = selective_scan_2d(*arguments, backend=backend)
    arguments[0][0, 2, 1] += 1
    changed = (selective_scan_2d(*arguments, backend=backend) != before).any(-1)[0].flatten()
    assert not changed[: 2 * 5 + 1].any()
    assert changed[2 * 5 + 1 :].all()


def test_every_pixel_sees_every_pixel(backend: str, map_problem: Problem) -> None:
    arguments = map_problem(1, 4, 5, 8, 4, 3)
    before = selective_scan_2d(*arguments, backend=backend)
    arguments[0][0, 2, 1] += 1
    assert (selective_scan_2d(*arguments, backend=backend) != before).any(-1).all()


def test_decays_beyond_what_a_number_holds(backend: str, agree: Callable[..., None], map_problem: Problem) -> None:
    """exp(dt A) with dt A from -0 to -4000: within one chunk of steps some are 1 and some are 0."""
    arguments = map_problem(1, 9, 10, 10, 4, 3)
    arguments[4] *= 30  # dt_weight: step sizes from 0 to about 100
    arguments[6] *= 20  # A
    agree(selective_scan_2d, reference.selective_scan_2d, arguments, backend=backend)


@needs_native
@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 12, 17, 80, 4, 6), (1, 20, 20, 20, 4, 5), (1, 15, 15, 150, 2, 3)])
def test_same_bits_for_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, map_problem: Problem, instruction_set: str, dtype: torch.dtype,
    shape: tuple[int, ...],
) -> None:  # fmt: skip
    """Many threads, few channels: slots of one line, some of them empty, directions as items of their own."""
    monkeypatch.setenv(native.INSTRUCTION_SET_VARIABLE, instruction_set)
    arguments = map_problem(*shape, dtype=dtype)
    results = []
    for count in (1, 2, 4, 5, 64):
        with threads(count):
            results.append(_with_gradients(arguments))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def _with_gradients(arguments: list[Tensor]) -> list[Tensor]:
    leaves = [a.clone().requires_grad_() for a in arguments]
    y = selective_scan_2d(*leaves, backend="native")
    return [y.detach(), *torch.autograd.grad(y, leaves, torch.ones_like(y))]


@needs_native
def test_in_a_forked_process(map_problem: Problem) -> None:
    """The threads of the parent are gone in the child: waiting for them would take forever."""
    arguments = map_problem(1, 12, 17, 80, 4, 6)
    with threads(2):
        expected = _with_gradients(arguments)

        def check() -> None:
            result = _with_gradients(arguments)
            os._exit(0 if all(torch.equal(a, b) for a, b in zip(result, expected, strict=True)) else 1)

        child = multiprocessing.get_context("fork").Process(target=check)
        child.start()
        child.join(timeout=60)
        code = child.exitcode
        child.kill()
    assert code == 0


class _Scanned(torch.utils.data.Dataset[Tensor]):
    """Items that a worker of a DataLoader computes by a scan."""

    def __init__(self, arguments: list[Tensor]) -> None:
        self.arguments = arguments

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        return selective_scan_2d(*self.arguments, backend="native")[0]


@needs_native
def test_in_workers_of_a_data_loader(map_problem: Problem) -> None:
    items = _Scanned(map_problem(1, 12, 17, 80, 4, 6))
    with threads(2):
        expected = items[0]
        loader = torch.utils.data.DataLoader(items, batch_size=None, num_workers=2, timeout=60)
        assert all(torch.equal(item, expected) for item in loader)


@needs_native
def test_denormal_numbers_are_zero_inside_only(map_problem: Problem) -> None:
    selective_scan_2d(*map_problem(1, 12, 17, 80, 4, 6), backend="native")
    tiny = torch.full((100_000,), 1e-40)
    assert (tiny * 1.0 == tiny).all() and tiny[0] > 0


@needs_native
@pytest.mark.parametrize("shape", [(1, 24, 24, 64, 4, 6, 2), (1, 40, 40, 64, 4, 43, 4), (2, 1, 2500, 16, 1, 16, 1)])
def test_saves_inputs_and_a_tenth_more(map_problem: Problem, shape: tuple[int, ...]) -> None:
    arguments = [a.clone().requires_grad_() for a in map_problem(*shape[:6])]
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = selective_scan_2d(*arguments, backend="native")
    inputs = sum(a.untyped_storage().nbytes() for a in arguments)
    assert y.grad_fn is not None
    assert inputs <= sum(saved.values()) <= 1.1 * inputs
