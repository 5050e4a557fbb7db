"""One cell of a profile: a model at a size, in a mode and precision, on a device; and measuring it in this process.

`main` is a process that does nothing else: it reads a request (JSON) from standard input and writes the answer to
standard output.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serpent_ir.assignments import parse_assignments
from serpent_ir.efficiency import memory
from serpent_ir.errors import DtypeError, RangeError, UnknownNameError, lacks_memory
from serpent_ir.models import create_model
from serpent_ir.models.serpent import VSSBlock
from serpent_ir.ops import backends

MODES = ("inference", "training")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICES = ("cpu", "cuda", "mps")

WARM_UP_SIZE = 64
MINIMUM_RUNS = 3


class Status:
    """What can become of a cell."""

    MEASURED = "measured"
    COUNTED = "counted"
    OUT_OF_MEMORY = "out of memory"
    OVER_TIME_LIMIT = "over the time limit"
    FAILED = "failed"
    NOT_RUN = "not run"


BEYOND_A_LIMIT = (Status.OUT_OF_MEMORY, Status.OVER_TIME_LIMIT)


@dataclass(frozen=True)
class Cell:
    """What is measured.

    model: a registry name, with overrides of its configuration behind it: `serpent-b:directions=1:depths_up=[2,2,3]`.
    height, width: of the input, in pixels; batch: images in a pass. mode: `inference`, a forward pass, or `training`,
    a step: forward, L1 loss, backward, Adam. precision: torch's autocast unless it is `float32`.
    device: `cpu`, `cuda`, `cuda:1`, `mps`; an index 0 is left out.

    Raises RangeError for sizes below 1, UnknownNameError for another mode, precision or device.
    """

    model: str
    height: int
    width: int
    batch: int = 1
    mode: str = "inference"
    precision: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("height", "width", "batch"):
            if getattr(self, name) < 1:
                raise RangeError(f"{name} {getattr(self, name)}", "1 or more")
        if self.mode not in MODES:
            raise UnknownNameError(f"mode {self.mode!r}", f"one of {', '.join(MODES)}")
        if self.precision not in PRECISIONS:
            raise UnknownNameError(f"precision {self.precision!r}", f"one of {', '.join(PRECISIONS)}")
        kind, separator, index = self.device.partition(":")
        if kind not in DEVICES or (separator and not index.isdecimal()) or (kind != "cuda" and index not in ("", "0")):
            raise UnknownNameError(f"device {self.device!r}", "cpu, cuda, cuda:1, mps ...")
        if index == "0":
            object.__setattr__(self, "device", kind)

    @property
    def pixels(self) -> int:
        """Of one image."""
        return self.height * self.width

    @property
    def size(self) -> str:
        """'512x768', as `parse_size` reads it."""
        return f"{self.height}x{self.width}"

    @property
    def series(self) -> Cell:
        """The cell of size 1 x 1: what all sizes, otherwise the same, have in common."""
        return replace(self, height=1, width=1)


def parse_size(text: str) -> tuple[int, int]:
    """Height and width: '256' -> (256, 256), '512x768' -> (512, 768). Raises RangeError for anything else."""
    numbers = text.split("x")
    if not all(number.isdecimal() for number in numbers) or len(numbers) > 2:
        raise RangeError(f"size {text!r}", "256, or 512x768 (height x width)")
    return int(numbers[0]), int(numbers[-1])


@dataclass(frozen=True)
class Settings:
    """How cells are measured.

    threads: of torch on the CPU. seconds, runs: passes are timed until there are `runs`, or at least three took
    `seconds` together. memory_limit: bytes that the model and a pass may take, None: 90 % of what is free on the CPU,
    all there is elsewhere. time_limit: seconds for a cell, with everything that belongs to it, None: as long as needed.

    Raises RangeError for threads, runs and bytes below 1, and for seconds that are not positive and finite.
    """

    threads: int
    seconds: float = 5.0
    runs: int = 30
    memory_limit: int | None = None
    time_limit: float | None = 600.0

    def __post_init__(self) -> None:
        for name in ("threads", "runs", "memory_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RangeError(f"{name} {value}", "1 or more")
        for name in ("seconds", "time_limit"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise RangeError(f"{name} {value}", "more than 0 seconds")

    def limit(self, status: str) -> float | None:
        """The limit that a cell of that status was beyond: bytes or seconds, None: none was set or none was passed."""
        return {Status.OUT_OF_MEMORY: self.memory_limit, Status.OVER_TIME_LIMIT: self.time_limit}.get(status)


def create(model: str, device: str = "cpu") -> nn.Module:
    """The model of a cell on `device`, freshly initialised (on `meta`: its shapes alone).

    Raises UnknownNameError and RangeError as `create_model` does.
    """
    name, *assignments = model.split(":")
    overrides = parse_assignments(assignments, f"override in model {model!r}:", "directions=1")
    with torch.device(device):
        return create_model(name, **overrides)


@dataclass(frozen=True)
class Gauge:
    """How the memory of a device is read, in bytes: held now, and the most that was held since `reset_peak`."""

    held: Callable[[], int]
    peak: Callable[[], int]
    reset_peak: Callable[[], None]


def gauge(device: torch.device) -> Gauge | None:
    """On the CPU the process's resident set, on CUDA what torch's tensors take; None: the device does not tell."""
    if device.type == "cpu":
        return Gauge(memory.resident, memory.peak, memory.reset_peak)
    if device.type == "cuda":
        return Gauge(
            lambda: torch.cuda.memory_allocated(device),
            lambda: torch.cuda.max_memory_allocated(device),
            lambda: torch.cuda.reset_peak_memory_stats(device),
        )
    return None


def can_bound_memory(device: torch.device) -> bool:
    """Whether `bound_memory` does anything: with CUDA, and on the CPU of Linux."""
    return device.type == "cuda" or (device.type == "cpu" and memory.can_be_limited())


def bound_memory(device: torch.device, limit: int | None) -> None:
    """Let torch refuse what goes beyond `limit` bytes, so that too large a cell ends itself and not the machine."""
    if device.type == "cpu":
        extra = memory.affordable() if limit is None else limit
        if extra is not None:
            memory.limit(extra)
    elif device.type == "cuda" and limit is not None:
        index = torch.cuda.current_device() if device.index is None else device.index
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(limit / total, 1.0), index)


def measure(cell: Cell, settings: Settings, deadline: float = math.inf) -> dict[str, Any]:
    """Memory and time of the cell's passes, to be called once in a process of its own.

    deadline: on the clock of `time.monotonic`; timing ends before it, if need be early.

    Returns `seconds` (of one pass: median, quartiles, number of runs), `reason` (None, or why there are fewer runs than
    asked for), `memory` in bytes (`peak` of the process or device during one pass, `baseline` before the model was
    there, `working`: what the pass added to model, optimizer and images; None: the device does not tell) and
    `scan_backend`. Raises what torch raises when the memory does not suffice for one pass.
    """
    import torch._dynamo  # 75 MB; optimizers and custom operators load it when first used, as if the model needed it

    device = torch.device(cell.device)
    torch.set_num_threads(settings.threads)
    torch.rand(2**20).exp()  # starts the threads, which bounded memory could not hold
    memory.give_back_what_is_freed()
    meter = gauge(device)
    baseline = meter.held() if meter else 0
    bound_memory(device, settings.memory_limit)

    model = create(cell.model, cell.device)
    scans = any(isinstance(module, VSSBlock) for module in model.modules())
    step = inference_pass(model, cell) if cell.mode == "inference" else training_step(model, cell)
    step(*inputs(model, cell, min(cell.height, WARM_UP_SIZE), min(cell.width, WARM_UP_SIZE)))

    image, target = inputs(model, cell, cell.height, cell.width)
    memory.give_back_what_is_freed()
    before = meter.held() if meter else 0
    if meter:
        meter.reset_peak()
    first = timed(step, image, target)
    peak = meter.peak() if meter else 0

    heap = peak - before if device.type == "cpu" else 0
    seconds, reason = timed_again(lambda: timed(step, image, target), first, heap, settings, deadline)
    return {
        "reason": reason,
        "seconds": {**quartiles(seconds), "runs": len(seconds)},
        "memory": {"peak": peak, "baseline": baseline, "working": peak - before} if meter else None,
        "scan_backend": backends.choose(device).backend if scans else None,
    }


def timed_again(
    run: Callable[[], float], first: float, heap: int, settings: Settings, deadline: float
) -> tuple[list[float], str | None]:
    """Seconds of passes, as many as `settings` ask for, and None; or of fewer, and why.

    run: one pass, gives its seconds. first: what it took before; stands alone when no other pass can be had.
    heap: bytes that a pass needs; the process takes them from the system before the first. deadline: as in `measure`.
    """
    seconds: list[float] = []
    memory.keep_what_is_freed()
    try:
        torch.empty(max(heap, 0), dtype=torch.uint8).fill_(0)
        while len(seconds) < settings.runs and (len(seconds) < MINIMUM_RUNS or sum(seconds) < settings.seconds):
            if time.monotonic() + max([first, *seconds]) > deadline:
                return seconds or [first], "timing ended early, before the time limit"
            seconds.append(run())
    except Exception as error:
        if not lacks_memory(error):
            raise
        return seconds or [first], f"timing ended early: {one_line(error)}"
    return seconds, None


def inputs(model: nn.Module, cell: Cell, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Random images in [0, 1] and targets of the output's shape."""
    config: Any = model.config
    scale = getattr(config, "upscale", 1)
    image = torch.rand(cell.batch, config.in_channels, height, width, device=cell.device)
    return image, torch.rand(cell.batch, config.out_channels, scale * height, scale * width, device=cell.device)


@contextmanager
def autocast(cell: Cell) -> Iterator[None]:
    """The context in which the cell's forward pass runs.

    Raises DtypeError where torch would leave out autocast, because the device does not know the precision.
    """
    if cell.precision == "float32":
        yield
        return
    kind = torch.device(cell.device).type
    with torch.autocast(kind, PRECISIONS[cell.precision]):
        if not torch.is_autocast_enabled(kind):
            raise DtypeError(f"autocast to {cell.precision} on {kind}", "a precision that torch has there")
        yield


def inference_pass(model: nn.Module, cell: Cell) -> Callable[[Tensor, Tensor], None]:
    """A forward pass of `model` in evaluation mode, without gradients; called with image and target (not used)."""
    model.eval()

    def infer(image: Tensor, target: Tensor) -> None:
        with torch.inference_mode(), autocast(cell):
            model(image)

    return infer


def training_step(model: nn.Module, cell: Cell) -> Callable[[Tensor, Tensor], None]:
    """Forward, L1 loss, backward and a step of Adam on `model` in training mode; called with image and target."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), fused=torch.device(cell.device).type == "cpu")  # as in training

    def train(image: Tensor, target: Tensor) -> None:
        with autocast(cell):
            loss = F.l1_loss(model(image), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return train


def timed(step: Callable[[Tensor, Tensor], None], image: Tensor, target: Tensor) -> float:
    """Seconds of one pass, until the device has finished it."""
    start = time.perf_counter()
    step(image, target)
    if image.device.type != "cpu":
        torch.accelerator.synchronize(image.device)
    return time.perf_counter() - start


def quartiles(values: list[float]) -> dict[str, float]:
    """The median and the quartiles (of a single value: itself)."""
    if len(values) == 1:
        values = 2 * values
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper}


def answer(cell: Cell, settings: Settings, deadline: float = math.inf) -> dict[str, Any]:
    """`measure` with `status`: every error is an answer, lack of memory one of its own."""
    try:
        return {"status": Status.MEASURED, **measure(cell, settings, deadline)}
    except Exception as error:
        return {"status": Status.OUT_OF_MEMORY if lacks_memory(error) else Status.FAILED, "reason": one_line(error)}


def one_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def main() -> None:
    """The process of one cell: request on standard input, answer on standard output.

    It ends without tidying up: where memory is bounded and used up, that can crash.
    """
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    memory.end_with_parent()
    with answers:
        json.dump(answer(Cell(**request["cell"]), Settings(**request["settings"]), request["deadline"]), answers)
    os._exit(0)
