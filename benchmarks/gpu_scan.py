"""What gpu.py measures of the scan: against Mamba's kernel, the portable backend, and two floors.

Times are seconds on the device, as median, quartiles and number of repeats; what is compared is measured in rounds, and
a ratio is the median, with quartiles, of the ratios of single rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import gpu_rivals
import torch
from common import Mark, scan_inputs, spread
from cpu_scan import Scale, map_record
from gpu_correctness import name_of, relative_error, rounded, scales_of, upstream_of
from gpu_device import Record, Session, common_ratios
from torch import Tensor

from serpent_ir.efficiency.cell import one_line
from serpent_ir.errors import lacks_memory
from serpent_ir.ops import selective_scan_2d

CELLS = (  # image, batch, type; what matters most first, in case that time runs out
    *((image, batch, torch.float32) for image in (256, 1024) for batch in (1, 8)),
    *((image, batch, torch.bfloat16) for image in (256, 1024) for batch in (1, 8)),
    *((image, batch, torch.float32) for image in (512, 2048) for batch in (1, 8)),
)
PORTABLE = (256, 512)  # images on which the portable backend takes part, batch 1, float32
PORTABLE_REPEATS = 3
LAUNCHES_MATTER = 5e-3  # seconds: below, work is also timed on its own, without the time of launching it
RIVAL_OVER_OURS = {1: 2.0, 8: 1.3}  # by batch
AGREES = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # the rival rounds step sizes and four outputs to 8 bits
KINDS = ("forward", "forward_and_backward")
OURS, COPIES_MADE, MAKING_COPIES = "triton", "mamba, copies made", "mamba, making copies"


class Call:
    """A differentiable function of tensors, ready to be timed."""

    def __init__(self, function: Callable[..., Tensor], tensors: dict[str, Tensor]) -> None:
        self.function = function
        self.leaves = {name: value.detach().requires_grad_() for name, value in tensors.items()}
        self.upstream: Tensor | None = None

    def forward(self) -> Tensor:
        with torch.no_grad():
            return self.function(*self.leaves.values())

    def forward_and_backward(self) -> tuple[Tensor, ...]:
        y = self.function(*self.leaves.values())
        if self.upstream is None:
            self.upstream = upstream_of(y)
        return torch.autograd.grad(y, list(self.leaves.values()), self.upstream)


def scan(session: Session, device: Record) -> Record:
    """All cells; device: as `describe_device` has it."""
    rival = gpu_rivals.find(session.device)
    record: Record = {"rival": {"name": None if rival.scan is None else rival.said, "version": rival.version}}
    record["rival"]["reason"] = rival.said if rival.scan is None else None
    record |= {"unit": "seconds, bytes", "cells": []}
    for number, (image, batch, dtype) in enumerate(CELLS[:1] if session.quick else CELLS):
        for scale in scales_of(image, session)[1 if session.quick else 0 :]:
            shape = {"image": image, "map": map_record(*scale), "batch": batch, "dtype": name_of(dtype)}
            with_portable = batch == 1 and dtype == torch.float32 and image in PORTABLE
            what = f"scan {image}²: {scale[0]}² D{scale[1]} N{scale[2]} batch {batch} {name_of(dtype)}"
            measure = partial(cell, scale, batch, dtype, rival, with_portable or session.quick, device, session)
            needed = 4.0 if number < 2 else 6.0
            record["cells"].append(shape | session.cell(what, measure, needed))
    return record


def cell(
    scale: Scale, batch: int, dtype: torch.dtype, rival: gpu_rivals.Rival, with_portable: bool, device: Record,
    session: Session,
) -> Record:  # fmt: skip
    inputs = rounded(scan_inputs(*scale, batch=batch, device=session.device), dtype)
    ours = Call(with_backend("triton"), inputs)
    record: Record = {"first_seconds": {}, "peak_bytes": {}}
    for kind in KINDS:
        record["first_seconds"][kind], record["peak_bytes"][kind] = session.first(getattr(ours, kind))
    record |= floors(inputs, ours, device)

    calls, reason = rivals_of(inputs, ours, rival, AGREES[dtype])
    passes = {OURS: ours, **calls}
    seconds: dict[tuple[str, str], list[float]] = {}
    left_out: dict[str, str] = {}
    try:
        seconds, left_out = timed_together(passes, session)
    except Exception as error:  # the rival's copies leave too little for ours
        if not lacks_memory(error) or not calls:
            raise
        reason = f"with its copies there: {one_line(error)}"
    if not seconds:  # not in the `except` above: while the error is there, so are the copies
        calls.clear()
        passes = {OURS: ours}
        session.release()
        seconds, left_out = timed_together(passes, session)
    record |= {"seconds": summed_up(seconds), "rival_left_out": reason, "left_out_of_passes": left_out}
    record["over_triton"] = {
        f"{system}, {kind}": common_ratios(values, seconds[OURS, kind])
        for (system, kind), values in seconds.items()
        if system != OURS
    }
    if statistics.median(seconds[OURS, "forward"]) < LAUNCHES_MATTER or session.quick:
        record |= without_launching(passes, list(seconds), session)
    if with_portable:
        portable = Call(with_backend("portable"), inputs)
        record["seconds"]["portable"] = times = portable_seconds(portable, session)
        for kind in KINDS:
            quotient = times[kind]["median"] / record["seconds"][OURS][kind]["median"]
            record["over_triton"][f"portable, {kind}"] = spread([quotient])
    for kind in KINDS:
        least = max(value for value in record["floors"][kind].values() if value is not None)
        record["over_floor"] = record.get("over_floor", {}) | {kind: record["seconds"][OURS][kind]["median"] / least}
    return record


def with_backend(backend: str) -> Callable[..., Tensor]:
    return lambda *arguments: selective_scan_2d(*arguments, backend=backend)


def floors(inputs: dict[str, Tensor], ours: Call, device: Record) -> Record:
    """Seconds that the device needs at least, to copy the bytes and for one exponential a state and step.

    Bytes: each input read and the output written; with gradients inputs are read again, as is the gradient of the
    output, and those of the inputs are written.
    """
    K, channels, states = inputs["A"].shape
    given, result = sum(value.nbytes for value in inputs.values()), inputs["x"].nbytes
    elements = K * channels * states * inputs["x"][..., 0].numel()
    rate, copied = device["exponentials_per_second"], device["copied_bytes_per_second"]
    exponentials = None if rate is None else elements / rate
    moved = {"forward": given + result, "forward_and_backward": 3 * given + 2 * result}
    return {
        "elements": elements,
        "floors": {kind: {"bytes": moved[kind] / copied, "exponentials": exponentials} for kind in KINDS},
    }


def rivals_of(
    inputs: dict[str, Tensor], ours: Call, rival: gpu_rivals.Rival, tolerance: float
) -> tuple[dict[str, Call], str | None]:
    """The rival's calls, checked: with the copies for its directions there, and with making them; or why not."""
    if rival.scan is None:
        return {}, rival.said
    scan, (_, height, width, _) = rival.scan, inputs["x"].shape
    if 4 * inputs["x"].numel() >= gpu_rivals.MOST_ELEMENTS:
        return {}, "more numbers than its offsets of 32 bits can count"

    def whole(*arguments: Tensor) -> Tensor:
        made = gpu_rivals.copies(dict(zip(inputs, arguments, strict=True)))
        return gpu_rivals.sum_of_directions(scan(*made.values()), height, width)

    try:
        made = Call(scan, gpu_rivals.copies(inputs))
        total = gpu_rivals.sum_of_directions(made.forward(), height, width)
        error = relative_error(total, ours.forward().double())
    except Exception as problem:  # whatever a rival fails of is no end of ours
        return {}, one_line(problem)
    if not error < tolerance:
        return {}, f"its sum over the directions is off by {error:.1e}"
    return {COPIES_MADE: made, MAKING_COPIES: Call(whole, inputs)}, None


def timed_together(
    passes: dict[str, Call], session: Session
) -> tuple[dict[tuple[str, str], list[float]], dict[str, str]]:
    """Seconds of all passes in rounds; and why a rival's is missing."""
    functions, missing = {}, {}
    for system, call in passes.items():
        for kind in KINDS:
            try:
                if not session.quick:
                    getattr(call, kind)()
                    session.synchronize()
                functions[system, kind] = getattr(call, kind)
            except Exception as error:
                if system == OURS:
                    raise
                missing[f"{system}, {kind}"] = one_line(error)
        session.release()
    return session.rounds(functions), missing


def without_launching(passes: dict[str, Call], keys: list[tuple[str, str]], session: Session) -> Record:
    """The same when the device has all work queued before it begins: what is left when launching is hidden."""
    chosen = [key for key in keys if key[0] != MAKING_COPIES]
    seconds = session.rounds({(system, kind): getattr(passes[system], kind) for system, kind in chosen}, queued=True)
    over = {
        f"{system}, {kind}": common_ratios(values, seconds[OURS, kind])
        for (system, kind), values in seconds.items()
        if system != OURS
    }
    return {"queued_seconds": summed_up(seconds), "queued_over_triton": over}


def portable_seconds(call: Call, session: Session) -> Record:
    """Few repeats: it takes long."""
    repeats, session.repeats = session.repeats, min(session.repeats, PORTABLE_REPEATS)
    try:
        seconds = session.rounds({kind: getattr(call, kind) for kind in KINDS})
    finally:
        session.repeats = repeats
    return {kind: spread(values) for kind, values in seconds.items()}


def summed_up(seconds: dict[tuple[str, str], list[float]]) -> Record:
    result: Record = {}
    for (system, kind), values in seconds.items():
        result.setdefault(system, {})[kind] = spread(values)
    return result


def marks(record: Record) -> Iterator[Mark]:
    """The worst cell of each batch, type and kind: how many times as long the rival takes, copies made."""
    if record["rival"]["name"] is None:
        return
    for dtype in ("float32", "bfloat16"):
        for batch, limit in RIVAL_OVER_OURS.items():
            for kind in KINDS:
                values = []
                for one in record["cells"]:
                    ratio = one.get("over_triton", {}).get(f"{COPIES_MADE}, {kind}")
                    if ratio and (one["dtype"], one["batch"]) == (dtype, batch):
                        values.append((ratio["median"], f"{one['image']}² D{one['map']['channels']}"))
                if values:
                    value, where = min(values)
                    what = f"mamba / triton, {kind.replace('_', ' ')}, batch {batch}, {dtype}, worst: {where}"
                    yield Mark("scan", what, value, limit, at_least=True)
