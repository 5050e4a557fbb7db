"""gpu.py --tune: the constants of the Triton backend, one at a time around their defaults, at Serpent-H's scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from common import TOLERANCE, new_table, scan_inputs, spread, three_digits
from cpu_scan import Scale, map_record
from gpu_correctness import computed, errors, name_of, scales_of, upstream_of
from gpu_device import Record, Session
from gpu_scan import KINDS, Call, with_backend
from rich.table import Table

from serpent_ir.ops import triton

FACTORS = {
    "STEPS": (2, 4, 8),
    "LANES": ((32,), (64,), (128,), (256,)),
    "PROGRAMS_PER_MULTIPROCESSOR": (4, 8, 16, 32),
    "SMALLEST_CHUNK": (8, 16, 32, 64),
    "LONGEST_CHUNK": (128, 256, 512, 1024),
    "CHUNKS_OF_GROUP": (32, 64, 128),
}
IMAGES = (256, 1024)
DEFAULT = "default"

Constants = dict[str, Any]


@contextmanager
def constants(chosen: Constants) -> Iterator[None]:
    """Within the block the backend has these constants."""
    before = {name: getattr(triton, name) for name in chosen}
    try:
        for name, value in chosen.items():
            setattr(triton, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(triton, name, value)


def choices(quick: bool) -> dict[str, Constants]:
    """The defaults, and what differs from them in one constant; those that the backend does not have are left out."""
    found: dict[str, Constants] = {DEFAULT: {}}
    for name, values in FACTORS.items():
        for value in values:
            if getattr(triton, name, value) != value:
                found[f"{name} = {value}"] = {name: value}
    return dict(list(found.items())[:2]) if quick else found


def tune(session: Session) -> Record:
    """For each map: seconds of each choice, sorted by those of both passes together; none that changes results."""
    known = {name: getattr(triton, name, None) for name in FACTORS}
    record: Record = {"unit": "seconds", "defaults": known, "cells": []}
    record["left_out"] = [f"{name}: not a constant of ops/triton.py" for name, value in known.items() if value is None]
    for image in (0,) if session.quick else IMAGES:
        for scale in scales_of(image, session)[: 1 if session.quick else None]:
            what = f"tuning {image}²: {scale[0]}² D{scale[1]} N{scale[2]}"
            shape = {"image": image, "map": map_record(*scale), "batch": 1, "dtype": name_of(torch.float32)}
            record["cells"].append(shape | session.cell(what, partial(of_map, scale, session), needed=30))
    return record


def of_map(scale: Scale, session: Session) -> Record:
    inputs = scan_inputs(*scale, device=session.device)
    upstream = upstream_of(inputs["x"])
    call = Call(with_backend("triton"), inputs)
    expected = {name: value.double() for name, value in computed(inputs, upstream, "triton").items()}
    functions: dict[tuple[str, str], Callable[[], object]] = {}
    refused: dict[str, str] = {}
    for name, chosen in choices(session.quick).items():
        reason = session.budget.why_not(10) if name != DEFAULT else None
        try:
            if reason is None:
                with constants(chosen):
                    worst = max(errors(computed(inputs, upstream, "triton"), expected).values())
                reason = None if worst < TOLERANCE else f"off by {worst:.1e}"
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
        if reason is not None:
            refused[name] = reason
            continue
        for kind in KINDS:
            functions[name, kind] = with_constants(chosen, getattr(call, kind))
    seconds: dict[str, Any] = {}
    for (name, kind), values in session.rounds(functions).items():
        seconds.setdefault(name, {})[kind] = spread(values)
    order = sorted(seconds, key=lambda name: seconds[name][KINDS[1]]["median"])
    return {"seconds": {name: seconds[name] for name in order}, "refused": refused}


def with_constants(chosen: Constants, run: Callable[[], object]) -> Callable[[], object]:
    def inside() -> object:
        with constants(chosen):
            return run()

    return inside


def tables(record: Record) -> Iterator[Table]:
    for cell in record["cells"]:
        size, channels, states, _ = cell["map"].values()
        title = f"{cell['image']}²: {size}² D{channels} N{states}, ms; times the default's"
        table = new_table(title, "", "forward", "times", "forward + backward", "times")
        seconds = cell.get("seconds", {})
        for name, times in seconds.items():
            row = []
            for kind in KINDS:
                median = times[kind]["median"]
                row += [three_digits(1e3 * median), three_digits(median / seconds[DEFAULT][kind]["median"])]
            table.add_row(name, *row)
        for name, reason in cell.get("refused", {}).items():
            table.add_row(name, reason)
        if "left_out" in cell:
            table.add_row("left out", cell["left_out"])
        yield table
