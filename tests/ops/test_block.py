"""The pointwise parts of a VSS block: values, gradients, threads, strides, the registered operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from block_oracle import plain_conv_silu, plain_norm_gate
from tolerances import RELATIVE
from torch import Tensor, nn

from serpent_ir.errors import DeviceError, DtypeError, ShapeError
from serpent_ir.ops import native, native_block, use_backend
from serpent_ir.ops.block import conv_silu, norm_gate

needs_native = pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")
ops = torch.ops.serpent


FUNCTIONS = {"conv_silu": (conv_silu, plain_conv_silu), "norm_gate": (norm_gate, plain_norm_gate)}
by_function = pytest.mark.parametrize("function", list(FUNCTIONS))


def arguments_of(function: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Maps of `shape` that are slices of a wider one, as in the model."""
    channels = shape[-1]
    halves = torch.randn(*shape[:-1], 2 * channels, dtype=dtype).split(channels, dim=-1)
    if function == "conv_silu":
        return [halves[0], torch.randn(channels, 1, 3, 3, dtype=dtype), torch.randn(channels, dtype=dtype)]
    return [torch.randn(shape, dtype=dtype), halves[1], *torch.randn(2, channels, dtype=dtype)]


def output_and_gradients(function: Callable[..., Tensor], arguments: Sequence[Tensor]) -> list[Tensor]:
    """Copies keep no strides, so each argument is a view of a leaf."""
    given = [argument.detach().requires_grad_() for argument in arguments]
    output = function(*given)
    direction = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return [output, *torch.autograd.grad(output, given, direction.to(output.dtype))]


def largest_error(values: Sequence[Tensor], oracles: Sequence[Tensor]) -> float:
    """As `relative_error`; below 0.1, absolute: with one channel the gradient of a norm's input is 0."""
    scales = [oracle.abs().max().clamp_min(0.1) for oracle in oracles]
    errors = [((v.double() - o).abs().max() / s).item() for v, o, s in zip(values, oracles, scales, strict=True)]
    return max(errors) if all(error == error for error in errors) else float("inf")


SHAPES = [(1, 1, 1, 1), (1, 1, 9, 8), (1, 9, 1, 3), (2, 5, 4, 16), (2, 13, 37, 70), (1, 140, 3, 129), (1, 2, 2, 1)]


@by_function
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_output_and_gradients(
    backend: str, nan_filled_memory: None, function: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    own, plain = FUNCTIONS[function]
    arguments = arguments_of(function, shape, dtype)
    with use_backend(backend):
        found = output_and_gradients(own, arguments)
    expected = output_and_gradients(plain, [argument.double() for argument in arguments])
    assert all(value.dtype == dtype and value.is_contiguous() for value in found)
    tolerance = 1e-6 if (backend, dtype) == ("native", torch.float32) else RELATIVE[dtype]
    assert largest_error(found, expected) < tolerance


@by_function
def test_numbers_far_from_zero(backend: str, function: str) -> None:
    own, plain = FUNCTIONS[function]
    arguments = arguments_of(function, (1, 4, 6, 24))
    arguments[0] = 30 * arguments[0] + 300
    arguments[1] = 30 * arguments[1]
    with use_backend(backend):
        found = output_and_gradients(own, arguments)
    expected = output_and_gradients(plain, [argument.double() for argument in arguments])
    assert largest_error(found, expected) < RELATIVE[torch.float32]


@by_function
def test_gradcheck(backend: str, function: str) -> None:
    arguments = [a.clone().requires_grad_() for a in arguments_of(function, (1, 3, 4, 5), torch.float64)]
    with use_backend(backend):
        assert torch.autograd.gradcheck(FUNCTIONS[function][0], arguments)


@by_function
@pytest.mark.parametrize("layout", ["channels first", "transposed", "every second pixel", "expanded"])
def test_any_strides(backend: str, function: str, layout: str) -> None:
    own, _ = FUNCTIONS[function]
    maps, *others = arguments_of(function, (2, 5, 6, 7))
    if layout == "channels first":
        maps = maps.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    elif layout == "transposed":
        maps = maps.transpose(1, 2).contiguous().transpose(1, 2)
    elif layout == "every second pixel":
        maps = torch.randn(2, 5, 12, 7)[:, :, ::2]
    else:
        maps = torch.randn(1, 5, 1, 7).expand(2, 5, 6, 7)
    given = [maps, *(other.transpose(0, -1).contiguous().transpose(0, -1) for other in others)]
    with use_backend(backend):
        found = output_and_gradients(own, given)
        expected = output_and_gradients(own, [argument.contiguous() for argument in given])
    assert largest_error(found, expected) < 1e-6


@needs_native
@by_function
def test_same_bits_for_any_number_of_threads(function: str) -> None:
    results, threads = [], torch.get_num_threads()
    arguments = arguments_of(function, (2, 37, 41, 80))
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            results.append(output_and_gradients(FUNCTIONS[function][0], arguments))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_native
def test_bands_of_a_map_make_the_map() -> None:
    x, weight, bias = arguments_of("conv_silu", (1, 9, 6, 20))
    whole, bands = conv_silu(x, weight, bias), torch.empty(1, 9, 6, 20)
    for first, last in ((0, 2), (2, 3), (3, 9)):
        band = bands[:, first:last]
        native_block.convolve(x[:, first:last], weight, bias, band, rows_above=first > 0, rows_below=last < 9)
    assert torch.equal(bands, whole)


@needs_native
def test_a_gate_in_place_and_a_norm_alone() -> None:
    y, z, weight, bias = arguments_of("norm_gate", (3, 4, 5, 21))
    expected = norm_gate(y, z, weight, bias, 1e-3)
    norm = native_block.gate(y, None, weight, bias, 1e-3, torch.empty_like(y))
    torch.testing.assert_close(norm, F.layer_norm(y, (21,), weight, bias, 1e-3))
    assert torch.equal(native_block.gate(y, z, weight, bias, 1e-3, y), expected)


@by_function
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(function: str, dtype: torch.dtype) -> None:
    own, plain = FUNCTIONS[function]
    arguments = [argument.to(dtype) for argument in arguments_of(function, (1, 5, 6, 8))]
    output = own(*arguments)
    assert output.dtype == dtype
    assert largest_error([output], [plain(*(a.double() for a in arguments))]) < 5 * RELATIVE[dtype]


@by_function
def test_meta_tensors_are_plain_torch(function: str) -> None:
    arguments = [argument.to("meta") for argument in arguments_of(function, (1, 5, 6, 8))]
    assert FUNCTIONS[function][0](*arguments).shape == (1, 5, 6, 8)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # opcheck's vmap, in plain torch
@by_function
def test_opcheck(backend: str, function: str) -> None:
    settings = (1e-5,) if function == "norm_gate" else ()
    arguments = [a.detach().clone().requires_grad_() for a in arguments_of(function, (2, 3, 4, 5))]
    grad = torch.randn(2, 3, 4, 5)
    with use_backend(backend):
        torch.library.opcheck(getattr(ops, function), (*arguments, *settings))
        arguments = [argument.detach() for argument in arguments]
        torch.library.opcheck(getattr(ops, f"{function}_backward"), (grad, *arguments, *settings))


@by_function
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(function: str, dynamic: bool) -> None:
    own, _ = FUNCTIONS[function]
    compiled = torch.compile(own, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for height in (5, 8):
        arguments = arguments_of(function, (1, height, 7, 6))
        found, expected = (output_and_gradients(f, arguments) for f in (compiled, own))
        assert largest_error(found, expected) < 1e-6


def test_exports_with_any_size() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return norm_gate(conv_silu(x, weight, bias), x, bias, bias)

    arguments = tuple(arguments_of("conv_silu", (2, 5, 6, 4)))
    sizes = {1: torch.export.Dim("height", min=2, max=99), 2: torch.export.Dim("width", min=2, max=99)}
    program = torch.export.export(Both(), arguments, dynamic_shapes=(sizes, None, None))
    other = arguments_of("conv_silu", (2, 9, 3, 4))
    torch.testing.assert_close(program.module()(*other), Both()(*other))


def changed(function: str, position: int, value: Any) -> list[Tensor]:
    arguments = arguments_of(function, (1, 3, 4, 5))
    arguments[position] = value
    return arguments


@pytest.mark.parametrize(
    ("function", "position", "value", "error", "message"),
    [
        ("conv_silu", 0, torch.rand(3, 4, 5), ShapeError, r"x has shape \(3, 4, 5\); expected \(B, H, W, D\)"),
        ("conv_silu", 0, torch.rand(1, 3, 0, 5), ShapeError, "nothing empty"),
        ("conv_silu", 1, torch.rand(5, 3, 3), ShapeError, r"weight \(5, 3, 3\).*expected \(D, 1, 3, 3\)"),
        ("conv_silu", 2, torch.rand(4), ShapeError, r"bias \(4,\)"),
        ("conv_silu", 2, torch.rand(5).double(), DtypeError, "x of torch.float32 and bias of torch.float64"),
        ("conv_silu", 2, torch.rand(5, device="meta"), DeviceError, "bias lies on meta, x on cpu"),
        ("norm_gate", 0, torch.tensor(1.0), ShapeError, r"y has shape \(\)"),
        ("norm_gate", 1, torch.rand(1, 3, 4, 6), ShapeError, r"z has shape \(1, 3, 4, 6\); expected y's"),
        ("norm_gate", 2, torch.rand(1, 5), ShapeError, r"weight \(1, 5\)"),
        ("norm_gate", 3, torch.rand(5).double(), DtypeError, "y of torch.float32 and bias of torch.float64"),
    ],
)
def test_the_compiled_part_is_handed_nothing_wrong(
    function: str, position: int, value: Tensor, error: type[Exception], message: str
) -> None:
    arguments = changed(function, position, value)
    out = torch.empty(arguments[0].shape)
    with pytest.raises(error, match=message):
        if function == "conv_silu":
            native_block.convolve(*arguments, out)
        else:
            native_block.gate(*arguments, 1e-5, out)


@needs_native
def test_wrong_outputs_and_gradients() -> None:
    x, weight, bias = arguments_of("conv_silu", (1, 3, 4, 5))
    with pytest.raises(ShapeError, match="out has strides"):
        native_block.convolve(x, weight, bias, torch.empty(1, 4, 3, 5).transpose(1, 2))
    with pytest.raises(ShapeError, match="the gradient has shape"):
        native_block.convolve_backward(torch.rand(1, 3, 4, 6), x, weight, bias)
    with pytest.raises(DtypeError, match=r"torch.float16; expected float32 or float64"):
        native_block.convolve(x.half(), weight.half(), bias.half(), torch.empty_like(x.half()))
    with pytest.raises(DeviceError, match="a tensor on meta; expected the CPU"):
        native_block.convolve(x.to("meta"), weight.to("meta"), bias.to("meta"), torch.empty_like(x, device="meta"))


@by_function
def test_the_operators_name_what_is_wrong(backend: str, function: str) -> None:
    arguments = changed(function, 2, torch.rand(4))
    with use_backend(backend), pytest.raises(ShapeError, match=r"\(4,\)"):
        FUNCTIONS[function][0](*arguments)
