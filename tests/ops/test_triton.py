"""The Triton kernels against the oracle: on a CUDA device where there is one, else in Triton's interpreter, tiny."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from block_oracle import plain_conv_silu, plain_norm_gate
from tolerances import RELATIVE, relative_error
from torch import Tensor

from serpent_ir.errors import ShapeError
from serpent_ir.models.serpent import Serpent, SerpentConfig
from serpent_ir.ops import reference, selective_scan, selective_scan_2d, triton, use_backend
from serpent_ir.ops.block import conv_silu, norm_gate
from serpent_ir.ops.problem import ScanProblem
from serpent_ir.ops.scan_operator import scan, scan_backward

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytest.importorskip("triton", "3.7" if DEVICE.type == "cpu" else "3.3")  # older interpreters fail with numpy of today
Problem = Callable[..., list[Tensor]]


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks as short as can be, two tiles of two steps: small maps have several."""
    monkeypatch.setattr(triton, "STEPS", 2)
    monkeypatch.setattr(triton, "SMALLEST_CHUNK", 4)
    monkeypatch.setattr(triton, "multiprocessors", lambda device: 1_000_000)


@pytest.fixture
def agree_here(agree: Callable[..., None]) -> Callable[..., None]:
    """`agree` with everything on the device that the kernels run on."""

    def check(function: Any, oracle: Any, arguments: list[Tensor | None], **keywords: Any) -> None:
        moved = [None if a is None else a.to(DEVICE) for a in arguments]
        agree(partial(function, backend="triton"), oracle, moved, **keywords)

    return check


def here(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.to(DEVICE) for tensor in tensors]


# -- maps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directions", [1, 2, 4])
@pytest.mark.parametrize("states", [1, 6, 43])
def test_maps(
    nan_filled_memory: None, agree_here: Callable[..., None], map_problem: Problem, directions: int, states: int
) -> None:
    """Several chunks of rows and of columns, whose lines do not fill their tiles."""
    width = 3 if states == 43 else 5
    agree_here(selective_scan_2d, reference.selective_scan_2d, map_problem(1, 3, width, 5, directions, states, rank=3))


def test_tiles_as_they_are_used(
    monkeypatch: pytest.MonkeyPatch, nan_filled_memory: None, agree_here: Callable[..., None], map_problem: Problem
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(triton, "multiprocessors", lambda device: 1_000_000)
    assert triton.STEPS == 4 and triton.SMALLEST_CHUNK == 16
    agree_here(selective_scan_2d, reference.selective_scan_2d, map_problem(1, 5, 5, 5, 4, 1))


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 5), (1, 5, 2)])
def test_sizes(
    nan_filled_memory: None, agree_here: Callable[..., None], map_problem: Problem, size: tuple[int, int, int]
) -> None:
    agree_here(selective_scan_2d, reference.selective_scan_2d, map_problem(*size, 3, 4, 1))


@pytest.mark.parametrize(("channels", "directions"), [(16, 4), (21, 4), (64, 2), (130, 1)])
def test_channels(
    nan_filled_memory: None, agree_here: Callable[..., None], map_problem: Problem, channels: int, directions: int
) -> None:
    """Blocks of 16 to 128, full and not, and two of them, whose sums over channels are added."""
    agree_here(selective_scan_2d, reference.selective_scan_2d, map_problem(1, 2, 3, channels, directions, 1))


def test_groups_of_chunks(
    monkeypatch: pytest.MonkeyPatch, nan_filled_memory: None, agree_here: Callable[..., None], map_problem: Problem
) -> None:
    """Groups of groups: 8 chunks in 4 groups in 2."""
    monkeypatch.setattr(triton, "CHUNKS_OF_GROUP", 2)
    agree_here(selective_scan_2d, reference.selective_scan_2d, map_problem(1, 4, 8, 3, 4, 1))


def test_wide_offsets(monkeypatch: pytest.MonkeyPatch, agree_here: Callable[..., None], map_problem: Problem) -> None:
    monkeypatch.setattr(triton, "WIDE_FROM", 1)
    agree_here(selective_scan_2d, reference.selective_scan_2d, map_problem(1, 3, 3, 5, 4, 1))


def test_decays_beyond_what_a_number_holds(agree_here: Callable[..., None], map_problem: Problem) -> None:
    arguments = map_problem(1, 3, 4, 10, 4, 2)
    arguments[4] *= 30  # dt_weight: step sizes from 0 to about 100
    arguments[6] *= 20  # A
    agree_here(selective_scan_2d, reference.selective_scan_2d, arguments)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(agree_here: Callable[..., None], map_problem: Problem, dtype: torch.dtype) -> None:
    """Inputs of half precision, parameters in float32, as under autocast."""
    inputs = [tensor.to(dtype) for tensor in map_problem(1, 3, 3, 24, 2, 2)[:4]]
    parameters = map_problem(1, 3, 3, 24, 2, 2)[4:]
    leaves = [tensor.to(DEVICE).requires_grad_() for tensor in (*inputs, *parameters)]
    exact = [tensor.detach().double().requires_grad_() for tensor in leaves]
    y, expected = selective_scan_2d(*leaves, backend="triton"), reference.selective_scan_2d(*exact)
    direction = torch.randn(expected.shape).to(DEVICE, dtype)
    gradients = torch.autograd.grad(y, leaves, direction)
    exact_gradients = torch.autograd.grad(expected, exact, direction.double())
    for value, oracle in zip((y, *gradients), (expected, *exact_gradients), strict=True):
        assert relative_error(value, oracle) < RELATIVE[value.dtype]
    assert [value.dtype for value in (y, *gradients)] == [dtype] * 5 + [torch.float32] * 4


def test_same_bits_in_two_runs(map_problem: Problem) -> None:
    arguments = here(map_problem(1, 2, 3, 20, 4, 1))
    results = []
    for _ in range(2):
        leaves = [a.clone().requires_grad_() for a in arguments]
        y = selective_scan_2d(*leaves, backend="triton")
        results.append([y, *torch.autograd.grad(y, leaves, torch.ones_like(y))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# -- sequences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forms", "options"),
    [
        ("rows", {"delta_softplus": True, "D": True, "delta_bias": True, "z": True}),
        ("groups", {"delta_softplus": True}),
        ("constant", {"D": True}),
        ("mixed", {"delta_bias": True}),
    ],
)
def test_sequences(
    nan_filled_memory: None, agree_here: Callable[..., None], forms: str, options: dict[str, bool]
) -> None:
    """B and C of every form, with and without what may be left out; 11 steps are 3 chunks."""
    batch, channels, length, states = 1, 6, 11, 2

    def rows(form: str) -> Tensor:
        shapes = {"rows": (batch, states, length), "groups": (batch, 2, states, length), "constant": (channels, states)}
        return torch.randn(shapes[form])

    b, c = (rows("constant"), rows("groups")) if forms == "mixed" else (rows(forms), rows(forms))
    delta = torch.rand(batch, channels, length) * 0.5
    optional = {
        "D": torch.randn(channels),
        "z": torch.randn(batch, channels, length),
        "delta_bias": torch.rand(channels),
    }
    given: list[Tensor | None] = [
        torch.randn(batch, channels, length),
        delta,
        -torch.rand(channels, states) - 0.1,
        b,
        c,
    ]
    given += [optional[name] if options.get(name) else None for name in ("D", "z", "delta_bias")]
    softplus = bool(options.get("delta_softplus"))

    def ours(*arguments: Tensor, backend: str) -> Tensor:
        return selective_scan(*arguments, delta_softplus=softplus, backend=backend)

    agree_here(ours, lambda *a: reference.selective_scan(*a, delta_softplus=softplus)[0], given)


def test_last_state() -> None:
    u, delta, b, c = torch.randn(2, 4, 9), torch.rand(2, 4, 9), torch.randn(2, 2, 9), torch.randn(2, 2, 9)
    arguments = here([u, delta, -torch.rand(4, 2) - 0.1, b, c])
    _, state = selective_scan(*arguments, return_last_state=True, backend="triton")
    assert relative_error(state, reference.selective_scan(*arguments)[1]) < RELATIVE[torch.float32]


# -- the operator ------------------------------------------------------------------------------------------------------


def test_opcheck(map_problem: Problem) -> None:
    x, dt_low, B, C, dt_weight, dt_bias, A, D = here(map_problem(1, 1, 3, 2, 1, 1))
    flat = [tensor.flatten(1, 2) for tensor in (x, dt_low, B, C)]
    inputs = (*flat, A, dt_weight, dt_bias, D, None, 1, 3, True)
    y, _, kept = scan(*inputs, "triton", True)
    assert kept.shape == (1, 1, 0, 1, 2)
    torch.library.opcheck(scan_backward, (torch.randn_like(y), kept, *inputs, "triton"))
    leaves = [t.detach().requires_grad_() if isinstance(t, Tensor) else t for t in inputs]
    torch.library.opcheck(scan, (*leaves, "triton", True))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(map_problem: Problem, dynamic: bool) -> None:
    def loss(*arguments: Tensor) -> Tensor:
        return selective_scan_2d(*arguments, backend="triton").square().sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for height in (3, 4):
        arguments = [a.to(DEVICE).requires_grad_() for a in map_problem(1, height, 3, 6, 1, 1)]
        expected = torch.autograd.grad(loss(*arguments), arguments)
        actual = torch.autograd.grad(compiled(*arguments), arguments)
        assert max(relative_error(a, e) for a, e in zip(actual, expected, strict=True)) < 1e-6


def test_nothing_is_kept_but_the_inputs(map_problem: Problem) -> None:
    arguments = [a.to(DEVICE).requires_grad_() for a in map_problem(1, 3, 3, 8, 4, 1)]
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = selective_scan_2d(*arguments, backend="triton")
    assert y.grad_fn is not None
    assert sum(saved.values()) == sum(
        a.untyped_storage().nbytes() for a in {a.untyped_storage().data_ptr(): a for a in arguments}.values()
    )


# -- how a problem is cut ----------------------------------------------------------------------------------------------


def problem_of(batch: int, height: int, width: int, channels: int, states: int) -> ScanProblem:
    x = torch.empty(batch, height * width, channels, device="meta")
    rows = torch.empty(batch, height * width, 4, states, device="meta")
    a = torch.empty(4, channels, states, device="meta")
    return ScanProblem(x, rows[..., :1], rows, rows, a, a[..., :1], None, None, None, height, width, True)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("size", [256, 512, 1024, 2048, 4096])
@pytest.mark.parametrize(("factor", "channels", "states"), [(1, 64, 6), (2, 128, 11), (4, 256, 22), (8, 512, 43)])
def test_plans(batch: int, size: int, factor: int, channels: int, states: int) -> None:
    """Chunks cover all, and are as long as they can be while the device is filled."""
    p = problem_of(batch, size // factor, size // factor, channels, states)
    plan = triton.Plan.of(p, 132)
    steps = size // factor * size // factor
    assert plan.chunk % triton.STEPS == 0 and (plan.chunks - 1) * plan.chunk < steps <= plan.chunks * plan.chunk
    assert plan.parts * plan.block == channels and plan.block * plan.abreast in triton.LANES
    programs = batch * plan.parts * -(-plan.chunks // plan.abreast)
    needed = 132 * triton.PROGRAMS_PER_MULTIPROCESSOR
    assert programs >= needed or (plan.chunk == triton.SMALLEST_CHUNK and plan.block * plan.abreast == 32)
    longest = min(triton.LONGEST_CHUNK, 1 << (8 * states - 1).bit_length())
    assert programs < 2 * needed or plan.chunk == longest or plan.block * plan.abreast < 128


def test_more_pixels_than_can_be_counted(map_problem: Problem) -> None:
    x = torch.empty(1, 1, 1, 4, device=DEVICE).expand(1, 2**16, 2**15, 4)
    rows = torch.empty(1, 1, 1, 1, 2, device=DEVICE).expand(1, 2**16, 2**15, 1, 2)
    _, _, _, _, dt_weight, dt_bias, A, D = here(map_problem(1, 1, 1, 4, 1, 2))
    with pytest.raises(ShapeError, match=r"2147483648 pixels; expected fewer than 2\^31 for the backend triton"):
        selective_scan_2d(x, rows, rows, rows, dt_weight, dt_bias, A, D, backend="triton")


# -- the rest of a block, and a model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 9, 1, 3), (2, 3, 4, 16), (1, 5, 9, 70), (1, 2, 3, 129)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("function", ["conv_silu", "norm_gate"])
def test_pointwise_parts(nan_filled_memory: None, function: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Maps are slices of a wider one; with maps of half precision parameters stay in float32."""
    channels = shape[-1]
    first, second = torch.randn(*shape[:-1], 2 * channels).to(DEVICE, dtype).split(channels, dim=-1)
    arguments = {
        "conv_silu": [first, torch.randn(channels, 1, 3, 3), torch.randn(channels)],
        "norm_gate": [torch.randn(shape).to(dtype), second, *torch.randn(2, channels)],
    }[function]
    own, plain = {"conv_silu": (conv_silu, plain_conv_silu), "norm_gate": (norm_gate, plain_norm_gate)}[function]
    leaves = [argument.to(DEVICE).detach().requires_grad_() for argument in arguments]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    with use_backend("triton"):
        output = own(*leaves)
        direction = torch.randn(shape).to(DEVICE, dtype)
        gradients = torch.autograd.grad(output, leaves, direction)
    assert output.grad_fn is not None and f"serpent_{function}" in output.grad_fn.name()
    expected = plain(*exact)
    oracles = (expected, *torch.autograd.grad(expected, exact, direction.double()))
    for value, oracle in zip((output, *gradients), oracles, strict=True):
        scale = oracle.abs().max().clamp_min(0.1)  # with one channel the gradient of a norm's input is 0
        assert ((value.double() - oracle).abs().max() / scale).item() < max(RELATIVE[value.dtype], 2 * RELATIVE[dtype])
    assert [value.dtype for value in gradients] == [leaf.dtype for leaf in leaves]


@pytest.mark.parametrize("function", ["conv_silu", "norm_gate"])
def test_opcheck_of_pointwise_parts(function: str) -> None:
    channels = 5  # an odd number: results that share memory would begin anywhere
    first, second = torch.randn(1, 2, 3, 2 * channels, device=DEVICE).split(channels, dim=-1)
    weights = torch.randn(channels, 1, 3, 3, device=DEVICE), torch.randn(channels, device=DEVICE)
    norm = torch.randn(2, channels, device=DEVICE).unbind()
    inputs = [first, *weights] if function == "conv_silu" else [first, second, *norm]
    rest = ("triton",) if function == "conv_silu" else (1e-5, "triton")
    forward, backward = (getattr(torch.ops.serpent, name).default for name in (function, f"{function}_backward"))
    torch.library.opcheck(forward, (*(t.detach().requires_grad_() for t in inputs), *rest))
    torch.library.opcheck(backward, (torch.randn(1, 2, 3, channels, device=DEVICE), *inputs, *rest))


def test_a_backward_pass_of_pointwise_parts_stays_with_its_backend() -> None:
    """Maps of half precision with float32 parameters are for Triton only."""
    x = torch.randn(1, 2, 3, 4, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    weight, bias = torch.randn(4, 1, 3, 3, device=DEVICE), torch.randn(4, device=DEVICE)
    with use_backend("triton"):
        output = norm_gate(conv_silu(x, weight, bias), x, bias, bias)
    output.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("function", ["conv_silu", "norm_gate"])
@pytest.mark.parametrize("asked", ["native", "triton", None])
def test_pointwise_parts_without_data(function: str, asked: str | None) -> None:
    x, weight = torch.empty(1, 2, 3, 4, device="meta"), torch.empty(4, 1, 3, 3, device="meta")
    with use_backend(asked):
        result = (
            conv_silu(x, weight, x[0, 0, 0]) if function == "conv_silu" else norm_gate(x, x, x[0, 0, 0], x[0, 0, 0])
        )
    assert result.shape == x.shape and result.device.type == "meta"


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, while it compiles
def test_pointwise_parts_compile() -> None:
    """By Inductor, which relies on shapes and strides as they are promised for tracing."""
    x, weight = torch.randn(1, 2, 3, 5, device=DEVICE), torch.randn(5, 1, 3, 3, device=DEVICE, requires_grad=True)
    bias = torch.randn(5, device=DEVICE, requires_grad=True)

    def loss(x: Tensor) -> Tensor:
        return norm_gate(conv_silu(x, weight, bias), x, bias, bias).square().sum()

    with use_backend("triton"):
        expected = torch.autograd.grad(loss(x), [weight, bias])
        found = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x), [weight, bias])
    assert max(relative_error(a, b.double()) for a, b in zip(found, expected, strict=True)) < 1e-5


def test_no_variance_and_no_epsilon() -> None:
    """Rows past the last pixel give no NaN to the sums."""
    y = torch.randn(1, 1, 3, 4, device=DEVICE)
    ones = torch.ones(4, device=DEVICE, requires_grad=True)
    with use_backend("triton"):
        (gradient,) = torch.autograd.grad(norm_gate(y, y, ones, ones, 0.0).sum(), [ones])
    assert torch.isfinite(gradient).all()


def test_a_model_runs_on_it() -> None:
    """A small Serpent, forwards and backwards, equals the same on the portable backend."""
    config = SerpentConfig(embed_channels=6, depths_down=(1,), depths_up=(0,), depth_bottleneck=1)
    model, image = Serpent(config).to(DEVICE), torch.rand(1, 3, 8, 16, device=DEVICE)
    results = {}
    for backend in ("triton", "portable"):
        with use_backend(backend):
            output = model(image)
            gradients = torch.autograd.grad(output.square().mean(), list(model.parameters()))
            with torch.no_grad():
                results[backend] = [output, model(image), *gradients]
    for value, expected in zip(results["triton"], results["portable"], strict=True):
        assert relative_error(value, expected.double()) < RELATIVE[torch.float32]
