"""The registered operator: schema, tracing, compiling, exporting."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tolerances import relative_error
from torch import Tensor, nn

from serpent_ir.errors import DtypeError, ShapeError
from serpent_ir.ops import native, selective_scan, selective_scan_2d, use_backend
from serpent_ir.ops.scan_operator import scan, scan_backward

Problem = Callable[..., list[Tensor]]


def test_opcheck_of_a_map(backend: str, map_problem: Problem) -> None:
    x, dt_low, B, C, dt_weight, dt_bias, A, D = (a.clone().requires_grad_() for a in map_problem(1, 2, 3, 6, 4, 3))
    flat = [tensor.detach().flatten(1, 2).requires_grad_() for tensor in (x, dt_low, B, C)]
    torch.library.opcheck(scan, (*flat, A, dt_weight, dt_bias, D, None, 2, 3, True, backend, True))


def sequence_inputs() -> tuple[object, ...]:
    """As selective_scan hands them over: transposed, with a direct path and a weight."""
    x, delta = torch.randn(2, 2, 4, 7).transpose(2, 3).unbind()
    b, c = torch.randn(2, 2, 2, 3, 7).permute(0, 1, 4, 2, 3).unbind()
    a, skip, weight = -torch.rand(1, 4, 3) - 0.1, torch.randn(1, 4), torch.randn(1, 4, 3)
    return x, delta.unsqueeze(2), b, c, a, None, None, skip, weight, 1, 7, True


def test_opcheck_of_a_sequence(backend: str) -> None:
    inputs = [t.detach().requires_grad_() if isinstance(t, Tensor) else t for t in sequence_inputs()]
    torch.library.opcheck(scan, (*inputs, backend, True))


def test_opcheck_of_the_backward_operator(backend: str, map_problem: Problem) -> None:
    x, dt_low, B, C, dt_weight, dt_bias, A, D = map_problem(1, 2, 3, 6, 4, 3)
    flat = (tensor.flatten(1, 2) for tensor in (x, dt_low, B, C))
    for inputs in ((*flat, A, dt_weight, dt_bias, D, None, 2, 3, True), sequence_inputs()):
        y, _, kept = scan(*inputs, backend, True)
        torch.library.opcheck(scan_backward, (torch.randn_like(y), kept, *inputs, backend))


def test_states_carry_no_gradient_and_none_are_kept_in_vain(backend: str) -> None:
    inputs = [t.detach().requires_grad_() if isinstance(t, Tensor) else t for t in sequence_inputs()]
    y, last, kept = scan(*inputs, backend, True)
    assert (y.requires_grad, last.requires_grad, kept.requires_grad) == (True, False, False)
    with pytest.raises(RuntimeError, match="keep_states=False, but a gradient is needed"):
        scan(*inputs, backend, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: torch.randn(2, 7, 1, 5)}, "dt of serpent::scan has shape"),
        ({3: torch.randn(2, 7, 2, 4)}, "c of serpent::scan has shape"),
        ({2: torch.randn(2, 7, 3, 3), 3: torch.randn(2, 7, 3, 3)}, "3 groups of 4 channels"),
        ({0: torch.randn(0, 7, 4)}, r"x \(0, 7, 4\)"),
        ({4: -torch.rand(2, 4, 3)}, "full-rank step sizes with one direction only"),
        ({9: 2}, "expected height \\* width = L = 7"),
    ],
)
def test_the_operator_trusts_nobody(backend: str, change: dict[int, object], message: str) -> None:
    inputs = list(sequence_inputs())
    for position, value in change.items():
        inputs[position] = value
    with pytest.raises(ShapeError, match=message):
        scan(*inputs, backend, False)
    with pytest.raises(DtypeError, match="of one floating type"):
        scan(*[t.double() if i == 4 else t for i, t in enumerate(sequence_inputs())], backend, False)


def test_the_operator_refuses_what_a_kernel_would_crash_on(backend: str) -> None:
    x, rows, a = torch.rand(1, 6, 4), torch.rand(1, 6, 2, 3), -torch.rand(1, 4, 3) - 0.1
    low, weight = torch.rand(1, 6, 1, 2), torch.rand(1, 4, 2)
    one = rows[:, :, :1]
    with pytest.raises(ShapeError, match="with 2 groups"):
        scan(x, low, rows, rows, a, weight, None, None, None, 2, 3, True, backend, True)
    with pytest.raises(ShapeError, match="R of at least 1"):
        scan(x, low[..., :0], one, one, a, weight[..., :0], None, None, None, 2, 3, True, backend, True)
    with pytest.raises(ShapeError, match="height -2"):
        scan(x, low, one, one, a, weight, None, None, None, -2, -3, True, backend, True)
    problem = x, low, one, one, a, weight, None, None, None, 2, 3, True, backend
    kept = scan(*problem, True)[2]
    with pytest.raises(ShapeError, match="kept has shape"):
        scan_backward(x, kept[..., :1], *problem)
    with pytest.raises(DtypeError, match="the gradient of y"):
        scan_backward(x.double(), kept, *problem)


def test_no_silent_second_gradient(backend: str, map_problem: Problem) -> None:
    leaves = [a.clone().requires_grad_() for a in map_problem(1, 3, 3, 4, 4, 2)]
    (gradient,) = torch.autograd.grad(selective_scan_2d(*leaves, backend=backend).sum(), leaves[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="create_graph"):
        gradient.square().sum().backward()


@pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")
def test_a_backward_pass_stays_with_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    u = torch.rand(1, 4, 9, requires_grad=True)
    with use_backend("portable"):
        y = selective_scan(u, u, -torch.ones(4, 3), torch.rand(1, 3, 9), torch.rand(1, 3, 9))
    monkeypatch.setattr(native, "backward", None)
    y.sum().backward()
    assert u.grad is not None


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(backend: str, map_problem: Problem, dynamic: bool) -> None:
    def loss(*arguments: Tensor) -> Tensor:
        return selective_scan_2d(*arguments, backend=backend).square().sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for height in (5, 8):
        arguments = [a.clone().requires_grad_() for a in map_problem(1, height, 7, 6, 4, 3)]
        expected = torch.autograd.grad(loss(*arguments), arguments)
        actual = torch.autograd.grad(compiled(*arguments), arguments)
        assert max(relative_error(a, e) for a, e in zip(actual, expected, strict=True)) < 1e-6


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, while it compiles
def test_sequence_compiles_with_inductor() -> None:
    arguments = torch.randn(1, 4, 30), torch.rand(1, 4, 30), -torch.rand(4, 3) - 0.1, *torch.randn(2, 1, 3, 30)
    compiled = torch.compile(selective_scan, fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), selective_scan(*arguments))


def test_exports_with_any_size(map_problem: Problem) -> None:
    class Scan(nn.Module):
        def forward(self, *arguments: Tensor) -> Tensor:
            return selective_scan_2d(*arguments)

    arguments = map_problem(2, 6, 7, 4, 4, 3)
    height, width = torch.export.Dim("height", min=2, max=100), torch.export.Dim("width", min=2, max=100)
    maps = {1: height, 2: width}
    program = torch.export.export(
        Scan(), tuple(arguments), dynamic_shapes={"arguments": (maps, maps, maps, maps, None, None, None, None)}
    )
    for size in ((6, 7), (9, 4)):
        other = map_problem(2, *size, 4, 4, 3)
        torch.testing.assert_close(program.module()(*other), selective_scan_2d(*other))
