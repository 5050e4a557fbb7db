"""The registered operator: schema, tracing, compiling, exporting."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tolerances import relative_error
from torch import Tensor, nn

from serpent_ir.ops import selective_scan, selective_scan_2d
from serpent_ir.ops.scan_operator import scan, scan_backward

Problem = Callable[..., list[Tensor]]


def test_opcheck_of_a_map(backend: str, map_problem: Problem) -> None:
    x, dt_low, B, C, dt_weight, dt_bias, A, D = (a.clone().requires_grad_() for a in map_problem(1, 2, 3, 6, 4, 3))
    flat = [tensor.detach().flatten(1, 2).requires_grad_() for tensor in (x, dt_low, B, C)]
    torch.library.opcheck(scan, (*flat, A, dt_weight, dt_bias, D, None, 2, 3, True, backend, True))


def test_opcheck_of_a_sequence(backend: str) -> None:
    x, delta = torch.randn(2, 2, 7, 4).unbind()
    b, c = torch.randn(2, 2, 7, 2, 3).unbind()
    a, weight = -torch.rand(1, 4, 3) - 0.1, torch.randn(1, 4, 3)
    tensors = [t.clone().requires_grad_() for t in (x, delta.unsqueeze(2), b, c, a)]
    torch.library.opcheck(scan, (*tensors, None, None, None, weight.requires_grad_(), 1, 7, True, backend, True))


def test_opcheck_of_the_backward_operator(backend: str, map_problem: Problem) -> None:
    x, dt_low, B, C, dt_weight, dt_bias, A, D = map_problem(1, 9, 10, 6, 4, 3)
    inputs = (*(tensor.flatten(1, 2) for tensor in (x, dt_low, B, C)), A, dt_weight, dt_bias, D, None, 9, 10, True)
    kept = scan(*inputs, backend, True)[2]
    torch.library.opcheck(scan_backward, (torch.randn(1, 90, 6), kept, *inputs, backend))


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
