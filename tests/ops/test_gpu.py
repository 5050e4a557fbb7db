"""On a CUDA device, at the sizes at which it is used: values, bits, memory, graphs, compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from tolerances import RELATIVE, relative_error
from torch import Tensor

from serpent_ir.models import create_model
from serpent_ir.ops import selective_scan, selective_scan_2d, triton, use_backend
from serpent_ir.ops.backends import choose

pytestmark = pytest.mark.gpu
Problem = Callable[..., list[Tensor]]
SCALES = [(1, 64, 6, 2), (2, 128, 11, 4), (4, 256, 22, 8), (8, 512, 43, 16)]  # of Serpent-H: divisor, D, N, R
by_scale = pytest.mark.parametrize(("divisor", "channels", "states", "rank"), SCALES)


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Matrix products and convolutions in float32 proper, so that what is compared differs in the scan alone."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def with_gradients(arguments: list[Tensor], direction: Tensor, backend: str) -> list[Tensor]:
    leaves = [argument.detach().requires_grad_() for argument in arguments]
    y = selective_scan_2d(*leaves, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, leaves, direction.to(y.dtype))]


def test_triton_is_the_choice() -> None:
    assert choose(torch.device("cuda")).backend == "triton"
    assert choose(torch.device("cuda"), None, torch.float64).backend == "portable"


@by_scale
@pytest.mark.parametrize("size", [(1, 256, 256), (1, 200, 333), (2, 512, 512)])
def test_agrees_with_double_precision(
    map_problem: Problem, divisor: int, channels: int, states: int, rank: int, size: tuple[int, int, int]
) -> None:
    batch, height, width = size
    arguments = map_problem(batch, height // divisor, width // divisor, channels, 4, states, rank)
    arguments = [argument.cuda() for argument in arguments]
    direction = torch.randn_like(arguments[0])
    found = with_gradients(arguments, direction, "triton")
    expected = with_gradients([argument.double() for argument in arguments], direction, "portable")
    errors = [relative_error(value, oracle) for value, oracle in zip(found, expected, strict=True)]
    assert max(errors) < RELATIVE[torch.float32], [f"{error:.1e}" for error in errors]


@by_scale
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_agrees_with_double_precision(
    map_problem: Problem, divisor: int, channels: int, states: int, rank: int, dtype: torch.dtype
) -> None:
    arguments = [a.cuda() for a in map_problem(1, 256 // divisor, 256 // divisor, channels, 4, states, rank)]
    arguments = [a.to(dtype) if position < 4 else a for position, a in enumerate(arguments)]
    direction = torch.randn_like(arguments[0])
    found = with_gradients(arguments, direction, "triton")
    expected = with_gradients([argument.double() for argument in arguments], direction, "portable")
    for value, oracle in zip(found, expected, strict=True):
        assert relative_error(value, oracle) < RELATIVE[value.dtype]


@by_scale
def test_wide_offsets(
    monkeypatch: pytest.MonkeyPatch, map_problem: Problem, divisor: int, channels: int, states: int, rank: int
) -> None:
    """The same bits as with narrow ones."""
    arguments = [a.cuda() for a in map_problem(1, 256 // divisor, 256 // divisor, channels, 4, states, rank)]
    direction = torch.randn_like(arguments[0])
    narrow = with_gradients(arguments, direction, "triton")
    monkeypatch.setattr(triton, "WIDE_FROM", 1)
    wide = with_gradients(arguments, direction, "triton")
    errors = [relative_error(a, b.double()) for a, b in zip(wide, narrow, strict=True)]
    assert max(errors) < 1e-6, errors


def test_a_long_memory_of_equal_steps() -> None:
    """What the device's exponential is off by adds up over a thousand steps when all of them are the same."""
    u = torch.ones(1, 4, 20_000, device="cuda")
    rows = torch.ones(1, 3, 20_000, device="cuda")
    arguments = u, 1e-3 * u, -torch.tensor([0.5, 1.0, 2.0], device="cuda").expand(4, 3), rows, rows
    expected = selective_scan(*(t.double() for t in arguments), backend="portable")
    assert relative_error(selective_scan(*arguments, backend="triton"), expected) < 3e-4


def test_a_long_sequence(map_problem: Problem) -> None:
    """Three levels of groups of chunks."""
    u, delta, b, c = (torch.randn(1, n, 1_000_003, device="cuda") for n in (4, 4, 3, 3))
    arguments = u, delta, -torch.rand(4, 3, device="cuda") - 0.01, b, c
    found = selective_scan(*arguments, delta_softplus=True, backend="triton")
    expected = selective_scan(*(t.double() for t in arguments), delta_softplus=True, backend="portable")
    assert relative_error(found, expected) < RELATIVE[torch.float32]


@by_scale
def test_same_bits_in_two_runs(map_problem: Problem, divisor: int, channels: int, states: int, rank: int) -> None:
    arguments = [a.cuda() for a in map_problem(2, 256 // divisor, 256 // divisor, channels, 4, states, rank)]
    direction = torch.randn_like(arguments[0])
    first = with_gradients(arguments, direction, "triton")
    for _ in range(3):
        again = with_gradients(arguments, direction, "triton")
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_map_of_4096_in_one_call(map_problem: Problem) -> None:
    """The first rows of the first direction do not depend on what follows; those of a backward one on all of it."""
    if torch.cuda.get_device_properties(0).total_memory < 80e9:
        pytest.skip("needs 80 GB of GPU memory")
    size, channels, states, rank = 4096, 64, 6, 2
    x = torch.randn(1, size, size, channels, device="cuda")
    rows = torch.randn(1, size, size, 4, rank + 2 * states, device="cuda")
    parameters = [parameter.cuda() for parameter in map_problem(1, 1, 1, channels, 4, states, rank)[4:]]
    with torch.no_grad():
        y = selective_scan_2d(x, *rows.split([rank, states, states], dim=-1), *parameters)
        assert torch.isfinite(y).all()
        one = [parameter[:1] for parameter in parameters]
        along = selective_scan_2d(x, *rows[..., :1, :].split([rank, states, states], dim=-1), *one)
        strip = [t[:, :8].double() for t in (x, *rows[..., :1, :].split([rank, states, states], dim=-1))]
        expected = selective_scan_2d(*strip, *(parameter.double() for parameter in one), backend="portable")
        assert relative_error(along[:, :8], expected) < RELATIVE[torch.float32]
        turned = torch.rot90(x, 2, (1, 2)), torch.rot90(rows[..., 2:3, :], 2, (1, 2))
        back = [parameter[2:3] for parameter in parameters]
        pair = [torch.cat(both) for both in zip(one, back, strict=True)]
        both = selective_scan_2d(x, *rows[..., 0::2, :].split([rank, states, states], dim=-1), *pair)
        del y
        backwards = selective_scan_2d(turned[0], *turned[1].split([rank, states, states], dim=-1), *back)
        assert relative_error(both, (along + torch.rot90(backwards, 2, (1, 2))).double()) < RELATIVE[torch.float32]


@pytest.mark.parametrize(("autocast", "most"), [(False, 1.3e9), (True, 0.8e9)])
def test_memory_of_a_training_step(autocast: bool, most: float) -> None:
    """Serpent-H at 256 x 256, batch 1, with Adam: the paper reports 5.3 GB."""
    model, image = create_model("serpent-h").cuda(), torch.rand(1, 3, 256, 256, device="cuda")
    optimiser = torch.optim.Adam(model.parameters())
    for step in range(3):
        if step == 1:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        optimiser.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            output = model(image)
        (output.float() - image).abs().mean().backward()
        optimiser.step()
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() < most


def test_autocast_stays_close() -> None:
    model, image = create_model("serpent-b").cuda(), torch.rand(2, 3, 256, 192, device="cuda")
    with torch.no_grad():
        expected = model(image)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            output = model(image)
    assert relative_error(output, expected.double()) < 5e-2  # eight bits a number, through 14 blocks


def test_the_blocks_kernels_make_no_difference() -> None:
    """Serpent-B with Triton's kernels for scan, convolution and gate, and with plain torch: output and gradients."""
    model, image = create_model("serpent-b").cuda(), torch.rand(1, 3, 200, 264, device="cuda")
    results = {}
    for backend in ("triton", "portable"):
        with use_backend(backend):
            output = model(image)
            results[backend] = [output, *torch.autograd.grad(output.square().mean(), list(model.parameters()))]
    for value, expected in zip(results["triton"], results["portable"], strict=True):
        assert relative_error(value, expected.double()) < 1e-3


def test_in_a_cuda_graph() -> None:
    model, image = create_model("serpent-b").cuda().eval(), torch.rand(1, 3, 256, 256, device="cuda")
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            model(image)  # compiles the kernels
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = model(image)
        image.copy_(torch.rand_like(image))
        graph.replay()
        assert torch.equal(output, model(image))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("autocast", [False, True])
def test_compiles_without_a_graph_break(autocast: bool) -> None:
    model, image = create_model("serpent-b").cuda(), torch.rand(1, 3, 128, 128, device="cuda")

    def loss(image: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            return model(image).float().square().mean()

    expected = torch.autograd.grad(loss(image), list(model.parameters()))
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True)(image), list(model.parameters()))
    tolerance = 0.1 if autocast else 1e-3
    assert max(relative_error(a, b.double()) for a, b in zip(found, expected, strict=True)) < tolerance
