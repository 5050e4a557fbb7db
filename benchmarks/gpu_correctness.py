"""What gpu.py checks before it measures: errors (largest error over largest value), equal bits, large maps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from common import TOLERANCE, scan_inputs
from cpu_scan import SCALES, Scale, map_record
from gpu_device import Record, Session
from torch import Tensor

from serpent_ir.errors import lacks_memory
from serpent_ir.ops import reference, selective_scan_2d

TOLERANCES = {torch.float32: TOLERANCE, torch.bfloat16: 1e-2}  # those of tests/tolerances.py
SMALL = (((40, 48), 21, 6, 2), ((1, 500), 21, 11, 3))
REAL = tuple(  # image, batch, type
    (image, batch, dtype) for image, batch in ((256, 1), (256, 8), (1024, 1), (512, 1)) for dtype in TOLERANCES
)
OF_PIXELS = ("x", "dt_low", "B", "C")
LARGE = 4096
STRIPS: tuple[
    tuple[int, int, int, tuple[int, int], int], ...
] = (  # directions, channels, states, first and last row, rows around them
    (1, 64, 6, (0, 64), 0),  # exact: nothing that comes later matters
    (2, 128, 2, (2016, 2080), 16),  # 2^31 numbers; states fade by exp(-60) within the rows around
)


def scales_of(image: int, session: Session) -> list[Scale]:
    """Maps of Serpent-H for a square image: size, channels, states, rank."""
    if session.quick:
        return [(3, 8, 2, 1), (2, 5, 1, 1)]
    return [(size * image // 256, *rest) for size, *rest in SCALES["serpent-h"]]  # type: ignore[misc]


def correctness(session: Session) -> Record:
    """All errors; the caller refuses to go on when there is one in `refusals`."""
    record = on_small_maps(session)
    record["large"] = session.cell("correctness, a large map", partial(large, session), needed=10)
    for strip in STRIPS:
        directions, channels, _, rows, _ = strip
        what = f"correctness, rows of a large map, K = {directions}, D = {channels}"
        shape = {"directions": directions, "channels": channels, "rows": rows, "dtype": "float32"}
        record["strips"].append(shape | session.cell(what, partial(of_strip, *strip, session), needed=10))
    for image, batch, dtype in ((0, 1, dtype) for dtype in TOLERANCES) if session.quick else REAL:
        for scale in scales_of(image, session)[1 if session.quick else 0 :]:
            what = f"correctness {scale[0]}² D{scale[1]} N{scale[2]} batch {batch} {name_of(dtype)}"
            shape = {"map": map_record(*scale), "batch": batch, "dtype": name_of(dtype)}
            record["real"].append(shape | session.cell(what, partial(real, scale, batch, dtype, session)))
    return record


def on_small_maps(session: Session) -> Record:
    """The record of a check on small maps only."""
    return {"small": small(session), "real": [], "large": {}, "strips": []}


def refusals(record: Record) -> Iterator[str]:
    """What is wrong; cells that time or memory left out are not."""
    for cell in (*record["small"], *record["real"], *record["strips"]):
        what = ", ".join(f"{name} {cell[name]}" for name in ("map", "batch", "channels", "dtype") if name in cell)
        for name, error in cell.get("errors", {}).items():
            if not error < TOLERANCES[getattr(torch, cell["dtype"])]:
                yield f"{name} is off by {error:.1e} (relative maximum): {what}"
        if not cell.get("bits_equal", True):
            yield f"two runs give different bits: {what}"
    for name in ("forward_finite", "backward_finite"):
        if not record["large"].get(name, True):
            yield f"a large map: {name} is false"


def small(session: Session) -> list[Record]:
    """Maps that the float64 loops can do."""
    maps = (((2, 3), 3, 1, 1),) if session.quick else SMALL
    records = []
    for size, channels, states, rank in maps:
        for dtype in TOLERANCES:
            what = f"correctness {size[0]} x {size[1]} D{channels} N{states} {name_of(dtype)}"
            inputs = rounded(scan_inputs(size, channels, states, rank), dtype)
            shape = {"map": map_record(size, channels, states, rank), "batch": 1, "dtype": name_of(dtype)}  # type: ignore[arg-type]
            records.append(shape | session.cell(what, partial(against_loops, inputs, session)))
    return records


def against_loops(inputs: dict[str, Tensor], session: Session) -> Record:
    upstream = upstream_of(inputs["x"])
    expected = computed(inputs, upstream, None)
    on_device = {name: value.to(session.device) for name, value in inputs.items()}
    found = computed(on_device, upstream.to(session.device), "triton")
    return {"errors": errors({name: value.cpu() for name, value in found.items()}, expected)}


def real(scale: Scale, batch: int, dtype: torch.dtype, session: Session) -> Record:
    """Against the portable backend in float64, and the kernels against themselves."""
    inputs = rounded(scan_inputs(*scale, batch=batch, device=session.device), dtype)
    upstream = upstream_of(inputs["x"])
    found, again = (computed(inputs, upstream, "triton") for _ in range(2))
    equal = all(torch.equal(found[name], again[name]) for name in found)
    del again
    wide = {name: value.double() for name, value in inputs.items()}
    return {"bits_equal": equal, "errors": errors(found, computed(wide, upstream.double(), "portable"))}


def large(session: Session) -> Record:
    """One map in one call, forwards and, if memory allows, backwards: finite, its seconds, its peak memory."""
    size = 4 if session.quick else LARGE
    shape = (size, 64, 6, 2) if not session.quick else (size, 4, 1, 1)
    inputs = scan_inputs(*shape, device=session.device)
    record: Record = {"map": map_record(*shape), "unit": "seconds, bytes"}
    outputs: list[Tensor] = []

    def forward() -> None:
        with torch.no_grad():
            outputs[:] = [selective_scan_2d(*inputs.values(), backend="triton")]

    record["input_bytes"] = sum(value.nbytes for value in inputs.values())
    record["forward_peak_bytes"] = session.peak(forward)
    record["forward_finite"] = bool(outputs[0].isfinite().all())
    outputs.clear()
    record["forward_seconds"] = session.timer(forward)
    outputs.clear()
    upstream = upstream_of(inputs["x"])
    try:
        peak = session.peak(lambda: outputs.extend(computed(inputs, upstream, "triton").values()))
    except Exception as error:
        if not lacks_memory(error):
            raise
        return record | {"backward_peak_bytes": None, "backward_left_out": "out of memory"}
    return record | {
        "forward_and_backward_peak_bytes": peak,
        "backward_finite": all(bool(value.isfinite().all()) for value in outputs),
    }


def of_strip(
    directions: int, channels: int, states: int, rows: tuple[int, int], margin: int, session: Session
) -> Record:
    """Some rows of a large map, read along rows, against the portable backend in float64 on these rows alone.

    The upstream gradient is zero elsewhere, so that all gradients are those of these rows and of `margin` around them.
    """
    size, (first, last) = LARGE, rows
    if session.quick:
        size, first, last, margin, channels, states = 5, 0, 5, 0, 4, 1
    inputs = scan_inputs(size, channels, states, 2, directions=directions, device=session.device)
    upstream = torch.zeros_like(inputs["x"])
    upstream[:, first:last] = upstream_of(upstream[:, first:last])
    around = slice(max(0, first - margin), min(size, last + margin))
    found = computed(inputs, upstream, "triton")
    found = {name: cut(name, value, slice(first, last)).clone() for name, value in found.items()}
    strip = {name: cut(name, value, around).double() for name, value in inputs.items()}
    expected = computed(strip, upstream[:, around].double(), "portable")
    inner = slice(first - around.start, last - around.start)
    return {"errors": errors(found, {name: cut(name, value, inner) for name, value in expected.items()})}


def cut(name: str, value: Tensor, rows: slice) -> Tensor:
    """Some rows of what belongs to pixels; parameters and their gradients whole."""
    return value[:, rows] if name.removeprefix("gradient of ") in ("y", *OF_PIXELS) else value


def computed(inputs: dict[str, Tensor], upstream: Tensor, backend: str | None) -> dict[str, Tensor]:
    """y and all gradients; backend None: the float64 loops."""
    if backend is None:
        inputs, upstream = {name: value.double() for name, value in inputs.items()}, upstream.double()
    leaves = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    if backend is None:
        y = reference.selective_scan_2d(**leaves)
    else:
        y = selective_scan_2d(*leaves.values(), backend=backend)
    gradients = torch.autograd.grad(y, list(leaves.values()), upstream)
    return {"y": y.detach(), **{f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}}


def upstream_of(x: Tensor) -> Tensor:
    generator = torch.Generator(x.device).manual_seed(1)
    return torch.randn(x.shape, generator=generator, device=x.device).to(x.dtype)


def rounded(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """What belongs to pixels in that type; parameters stay float32."""
    return {name: value.to(dtype) if name in OF_PIXELS else value for name, value in inputs.items()}


def errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Largest error over largest value, infinite where something is not a number."""
    return {name: relative_error(value, expected[name]) for name, value in found.items()}


def relative_error(value: Tensor, right: Tensor) -> float:
    error = float((value.double() - right).abs().max() / right.abs().max().clamp_min(1e-30))
    return error if error == error else float("inf")


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
