"""What gpu.py measures of whole models: training steps and inference, time and peak memory.

peak: bytes of torch's tensors during a pass, the model's, its optimizer's and the images' included; working: without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from common import Mark, spread
from gpu_correctness import relative_error
from gpu_device import Record, Session, captured, common_ratios
from torch import Tensor

from serpent_ir.efficiency.cell import Cell, create, inference_pass, inputs, training_step
from serpent_ir.ops import backends

TRAINED = (
    ("serpent-h", "float32"),
    ("serpent-h", "bfloat16"),
    *((name, "float32") for name in ("serpent-b", "unet-32", "unet-128", "restormer", "swinir-b")),
)
INFERRED = tuple((name, size) for size in (256, 1024, 2048) for name in ("serpent-b", "serpent-l", "serpent-h"))
PEAK_GB = {"serpent-h float32": 1.3, "serpent-h bfloat16": 0.8}  # of a training step; the paper says 5.3
SIZE = 256
COMPILED = "serpent-h"
COMPILING = 75.0  # seconds that compiling it may take


def model(session: Session) -> Record:
    """Training, inference, and inference by a CUDA graph and compiled."""
    size = 16 if session.quick else SIZE
    kind = session.device.type
    trained, inferred = (TRAINED[:2], INFERRED[:1]) if session.quick else (TRAINED, INFERRED)
    if session.quick:
        inferred = (("serpent-b", size),)
    record: Record = {"unit": "seconds, bytes", "size": size, "batch": 1}
    record["scan_backend"] = backends.choose(session.device).backend
    cells = {
        f"{name} {precision}": Cell(name, size, size, 1, "training", precision, kind) for name, precision in trained
    }
    record["training"] = together("training", cells, session)
    over = record["training"].get("seconds", {})
    record["training"]["over_serpent_h"] = {
        name: value["median"] / over["serpent-h float32"]["median"]
        for name, value in over.items()
        if "serpent-h float32" in over
    }
    record["inference"] = {}
    for side in dict.fromkeys(side for _, side in inferred):
        cells = {name: Cell(name, side, side, device=kind) for name, other in inferred if other == side}
        record["inference"][str(side)] = together(f"inference {side}²", cells, session)
    for way, needed in (("cuda graph", 10.0), ("torch.compile", COMPILING)):
        name = "serpent-b" if session.quick else COMPILED
        what = f"inference {size}² {name}, {way}"
        record[way] = session.cell(what, partial(another_way, name, size, way, session), needed)
    return record


def together(what: str, cells: dict[str, Cell], session: Session) -> Record:
    """Peaks of the cells one after the other, then their times in rounds."""
    passes: dict[str, Callable[[], object]] = {}
    record: Record = {"peak": {}, "first_seconds": {}, "left_out": {}}
    for name, cell in cells.items():
        found = session.cell(f"{what}: {name}", partial(prepared, name, cell, passes, session))
        if "left_out" in found:
            record["left_out"][name] = found["left_out"]
        else:
            record["peak"][name], record["first_seconds"][name] = found["peak"], found["first_seconds"]
    times = session.cell(f"{what}: times", lambda: {"values": session.rounds(passes) if passes else {}})
    if "left_out" in times:
        record["left_out"]["times"] = times["left_out"]
    record["seconds"] = {name: spread(values) for name, values in times.get("values", {}).items()}
    return record


def prepared(name: str, cell: Cell, passes: dict[str, Callable[[], object]], session: Session) -> Record:
    """Puts a pass of the cell among `passes`; gives its peak memory and what the first call took."""
    torch.manual_seed(0)
    before = session.gauge.held()
    network = create(cell.model, cell.device)
    step = (inference_pass if cell.mode == "inference" else training_step)(network, cell)
    image, target = inputs(network, cell, cell.height, cell.width)
    first, _ = session.first(lambda: step(image, target))  # the optimizer's state is there from now on
    held = session.gauge.held() - before
    peak = held + session.peak(lambda: step(image, target))
    passes[name] = lambda: step(image, target)
    return {"peak": peak, "first_seconds": first}


def another_way(name: str, size: int, way: str, session: Session) -> Record:
    """Inference eager and in that way, in rounds; and how far the results are apart."""
    torch.manual_seed(0)
    network = create(name, session.device.type).eval()
    image = torch.rand(1, 3, size, size, device=session.device)

    def run(called: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.inference_mode():
            return called(image)

    expected = run(network).clone()
    runs: dict[str, Callable[[], object]] = {"eager": lambda: run(network)}
    if way == "torch.compile":
        compiled: Any = torch.compile(network, backend="eager" if session.quick else "inductor")
        runs[way] = lambda: run(compiled)
        preparing, _ = session.first(runs[way])
        found = run(compiled)
        working = session.peak(runs[way])
    else:
        made: list[Any] = []
        preparing, working = session.first(lambda: made.extend(captured(lambda: run(network), session.device)))
        runs[way], found = made
        runs[way]()
        session.synchronize()
    record: Record = {"preparing_seconds": preparing, "error": relative_error(found, expected.double())}
    record["working"] = {"eager": session.peak(runs["eager"]), way: working}
    times = session.rounds(runs)
    record["seconds"] = {name: spread(values) for name, values in times.items()}
    return record | {f"eager over {way}": common_ratios(times["eager"], times[way])}


def marks(record: Record) -> Iterator[Mark]:
    for name, limit in PEAK_GB.items():
        peak = record["training"]["peak"].get(name)
        if peak is not None:
            what = f"GB, training step of {name} at {record['size']}², batch 1"
            yield Mark("model", what, peak / 1e9, limit)
