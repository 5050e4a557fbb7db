"""How fast is the native scan against a Python loop over time, and what does Serpent-B cost at 256 x 256?

    python benchmarks/scan_cpu.py [--threads 2]

Measured: the four-direction scan at the four scales of Serpent-B on a 256 x 256 image, native and portable, forward and
forward with backward; at scale 1 also two loops over time in float32 torch; and the whole of Serpent-B, batch 1. Random
inputs distributed as at initialisation. Medians and quartiles.

Writes results/scan_cpu.json. Exit status 1 when the native forward is less than 20 times as fast as the loop, or
Serpent-B takes 0.12 s or more (a mark for 2 cores).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from common import refuse_when_the_scan_is_wrong, scan_inputs, timing, write_result
from rich.console import Console
from rich.table import Table
from torch import Tensor

from serpent_ir.models import create_model
from serpent_ir.ops import reference, selective_scan_2d, use_backend
from serpent_ir.ops.scan_order import inverse_order, scan_order

SCALES = (
    {"size": 64, "channels": 64, "states": 6, "rank": 2},
    {"size": 32, "channels": 128, "states": 11, "rank": 4},
    {"size": 16, "channels": 256, "states": 22, "rank": 8},
    {"size": 8, "channels": 512, "states": 43, "rank": 16},
)
BACKENDS = ("native", "portable")
REQUIRED_SPEEDUP = 20.0
REQUIRED_SECONDS = 0.12


def sequences(
    x: Tensor, dt_low: Tensor, B: Tensor, C: Tensor, dt_weight: Tensor, dt_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """u and dt (4, L, D), B and C (4, L, N) of a map of batch 1, each direction in its own order."""
    _, height, width, channels = x.shape
    orders = [scan_order(k, height, width) for k in range(4)]
    u = torch.stack([x.reshape(-1, channels)[order] for order in orders])
    low, b, c = (
        torch.stack([rows.reshape(height * width, 4, -1)[order, k] for k, order in enumerate(orders)])
        for rows in (dt_low, B, C)
    )
    return u, F.softplus(low @ dt_weight.mT + dt_bias[:, None]), b, c


def back_in_place(y: Tensor, x: Tensor) -> Tensor:
    """(4, L, D) in the directions' orders -> their sum as a map shaped like x."""
    _, height, width, _ = x.shape
    return sum(y[k][inverse_order(scan_order(k, height, width))] for k in range(4)).view_as(x)  # type: ignore[union-attr]


def loop(
    x: Tensor, dt_low: Tensor, B: Tensor, C: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor
) -> Tensor:
    """The oracle's recurrence in float32: one direction after the other, a step for all channels and states at once."""
    u, dt, b, c = sequences(x, dt_low, B, C, dt_weight, dt_bias)
    y = torch.empty_like(u)
    for k in range(4):
        h = torch.zeros_like(A[k])
        for t in range(u.shape[1]):
            step = dt[k, t, :, None]
            h = torch.exp(step * A[k]) * h + step * b[k, t] * u[k, t, :, None]
            y[k, t] = (h * c[k, t]).sum(-1) + D[k] * u[k, t]
    return back_in_place(y, x)


def lean_loop(
    x: Tensor, dt_low: Tensor, B: Tensor, C: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor
) -> Tensor:
    """The best a loop can do: all directions at once, everything but one fused multiply-add done before or after it."""
    u, dt, b, c = sequences(x, dt_low, B, C, dt_weight, dt_bias)
    decay = torch.exp(dt[..., None] * A[:, None]).transpose(0, 1).contiguous()
    states = ((dt * u)[..., None] * b[:, :, None]).transpose(0, 1).contiguous()
    rows, decays = states.unbind(), decay.unbind()
    for t in range(1, len(rows)):
        rows[t].addcmul_(decays[t], rows[t - 1])
    y = torch.einsum("lkdn,kln->kld", states, c) + D[:, None] * u
    return back_in_place(y, x)


def refuse_when_a_loop_is_wrong() -> None:
    inputs = scan_inputs(size=7, channels=5, states=3, rank=2)
    expected = reference.selective_scan_2d(**inputs)
    for function in (loop, lean_loop):
        error = float((function(**inputs) - expected).abs().max() / expected.abs().max())
        if not error < 1e-4:
            raise SystemExit(f"refused: {function.__name__} is off by {error:.1e}")


def measure_backend(backend: str, inputs: dict[str, Tensor], repeats: int) -> dict[str, Any]:
    """Seconds of the forward pass, and of forward and backward (gradients of all inputs) together."""
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    upstream = torch.ones_like(inputs["x"])

    def forward() -> Tensor:
        with torch.no_grad():
            return selective_scan_2d(**inputs)

    def forward_and_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(selective_scan_2d(**leaves), list(leaves.values()), upstream)

    with use_backend(backend):
        return {"forward": timing(forward, repeats), "forward_and_backward": timing(forward_and_backward, repeats)}


def measure_model(repeats: int) -> dict[str, float]:
    """Seconds of Serpent-B's forward pass at 256 x 256, batch 1, float32, native scan."""
    torch.manual_seed(0)
    model = create_model("serpent-b").eval()
    image = torch.rand(1, 3, 256, 256)
    with torch.inference_mode(), use_backend("native"):
        return timing(lambda: model(image), repeats)


def measure_loop(function: Callable[..., Tensor], inputs: dict[str, Tensor]) -> dict[str, float]:
    with torch.no_grad():
        return timing(lambda: function(**inputs), repeats=5, warm_up=1)


def milliseconds(measured: dict[str, float]) -> str:
    quartiles = f"{1e3 * measured['lower_quartile']:.2f} to {1e3 * measured['upper_quartile']:.2f}"
    return f"{1e3 * measured['median']:.2f} ({quartiles})"


def print_tables(result: dict[str, Any]) -> None:
    table = Table(title="selective_scan_2d, four directions, batch 1, float32: milliseconds, median (quartiles)")
    for header in ("map", "backend", "forward", "forward + backward"):
        table.add_column(header)
    for scale in result["scales"]:
        for backend in BACKENDS:
            measured = scale[backend]
            shape = f"{scale['size']}² D{scale['channels']} N{scale['states']}"
            table.add_row(
                shape, backend, milliseconds(measured["forward"]), milliseconds(measured["forward_and_backward"])
            )
    Console().print(table)
    for name, speedup in result["native_speedup_over"].items():
        print(f"64²: {name} {milliseconds(result[name])} ms, native is {speedup:.1f} times as fast")
    print(f"required over loop: at least {REQUIRED_SPEEDUP:.0f} times")
    print(
        f"Serpent-B, 256²: {milliseconds(result['serpent_b_256'])} ms; required: under {1e3 * REQUIRED_SECONDS:.0f} ms"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads that torch and the kernels use")
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    refuse_when_the_scan_is_wrong(BACKENDS)
    refuse_when_a_loop_is_wrong()

    scales = []
    for scale in SCALES:
        inputs = scan_inputs(**scale)
        scales.append(
            {**scale, **{backend: measure_backend(backend, inputs, arguments.repeats) for backend in BACKENDS}}
        )
    inputs = scan_inputs(**SCALES[0])
    result: dict[str, Any] = {
        "question": (__doc__ or "").splitlines()[0],
        "unit": "seconds",
        "scales": scales,
        "loop": measure_loop(loop, inputs),
        "lean_loop": measure_loop(lean_loop, inputs),
        "serpent_b_256": measure_model(arguments.repeats),
    }
    native = scales[0]["native"]["forward"]["median"]
    result["native_speedup_over"] = {name: result[name]["median"] / native for name in ("loop", "lean_loop")}
    print_tables(result)
    print(f"written: {write_result('scan_cpu', result)}")
    fast_scan = result["native_speedup_over"]["loop"] >= REQUIRED_SPEEDUP
    fast_model = result["serpent_b_256"]["median"] < REQUIRED_SECONDS
    return 0 if fast_scan and fast_model else 1


if __name__ == "__main__":
    raise SystemExit(main())
