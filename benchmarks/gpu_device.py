"""What gpu.py needs of the device, and its budget of time. What only CUDA has stands here, and nowhere else.

On the CPU (a dry run, with Triton's interpreter) everything here has a stand-in, so that all other lines run.
"""

from __future__ import annotations

import gc
import math
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from common import ratios, rounds
from torch import Tensor

from serpent_ir.efficiency.cell import Gauge, gauge, one_line
from serpent_ir.errors import lacks_memory

SHORT = 0.05  # seconds: what takes less is repeated as often as asked for
LONG = 1.5  # seconds that the rounds of slower things may take together, three rounds at least
QUEUED = 5e-3  # seconds that the device waits for work to queue up
COPIED_BYTES = 2**31

Key = TypeVar("Key", bound=Hashable)
Record = dict[str, Any]


class Timer:
    """Seconds of a call on the device, by events, with nothing of its data in the cache.

    queued: the device waits until the work is queued, so that only its own time counts, not that of launching.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            cache = torch.cuda.get_device_properties(device).L2_cache_size
            self.overwritten = torch.empty(4 * cache, dtype=torch.uint8, device=device)

    def __call__(self, run: Callable[[], object], queued: bool = False) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.overwritten.zero_()
        if queued:
            torch.cuda._sleep(int(QUEUED * (maximum_clock(self.device)[0] or 1.5e9)))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3


@dataclass
class Budget:
    """Seconds that the whole run may take; a part stops at its own share of them."""

    seconds: float
    started: float = field(default_factory=time.monotonic)
    until: float = math.inf

    @property
    def used(self) -> float:
        return time.monotonic() - self.started

    def why_not(self, needed: float) -> str | None:
        """Why something that takes so many seconds is not begun any more, or None."""
        limit = min(self.seconds, self.until)
        if self.used + needed <= limit:
            return None
        return f"time: {self.used:.0f} of {limit:.0f} s were used, and it may need {needed:.0f}"


class Session:
    """A run of gpu.py: the device, how often is measured, and what went wrong.

    repeats: rounds of what takes less than 50 ms. quick: tiny sizes, the figures mean nothing.
    """

    def __init__(self, device: torch.device, repeats: int, quick: bool, seconds: float) -> None:
        self.device, self.repeats, self.quick = device, repeats, quick
        self.budget, self.timer = Budget(seconds), Timer(device)
        meter = gauge(device)
        assert meter is not None  # CUDA and the CPU have one
        self.gauge: Gauge = meter
        self.failures: list[str] = []

    def cell(self, what: str, measure: Callable[[], Record], needed: float = 5.0) -> Record:
        """What `measure` gives, or why it was left out: no time left, no memory, or an error."""
        start, error_line = self.budget.used, self.budget.why_not(needed)
        record: Record = {}
        if error_line is None:
            try:
                record = measure()
            except Exception as error:
                error_line = one_line(error)
                if not lacks_memory(error):
                    traceback.print_exc()
                    self.failures.append(f"{what}: {error_line}")
            try:
                self.release()
            except Exception as error:  # after an error of the device, whatever is asked of it is one
                self.failures.append(f"{what}, afterwards: {one_line(error)}")
        if error_line is not None:
            record = {"left_out": error_line}
        note = f"left out: {error_line}" if error_line else f"{self.budget.used - start:.1f} s"
        print(f"[{self.budget.used:5.0f} s] {what}: {note}", flush=True)
        return record

    def release(self) -> None:
        """Gives freed memory back to the device."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak(self, run: Callable[[], object]) -> int:
        """Bytes that a call took at most, beyond what was held before."""
        self.synchronize()
        held = self.gauge.held()
        self.gauge.reset_peak()
        run()
        self.synchronize()
        return self.gauge.peak() - held

    def first(self, run: Callable[[], object]) -> tuple[float, int]:
        """A first call: seconds, compilation included, as a clock on the wall has them; and its peak."""
        start = time.perf_counter()
        peak = self.peak(run)
        return time.perf_counter() - start, peak

    def rounds(self, functions: Mapping[Key, Callable[[], object]], queued: bool = False) -> dict[Key, list[float]]:
        """Seconds of each function, round by round after two that are not counted.

        What takes long takes part in the first few rounds only.
        """

        def timed(run: Callable[[], object]) -> Callable[[], float]:
            return lambda: self.timer(run, queued)

        clocks = {name: timed(run) for name, run in functions.items()}
        if self.quick:
            return rounds(clocks, self.repeats, warm_up=0)
        first = [statistics.median([clock(), clock()]) for clock in clocks.values()]
        short = {name: clock for (name, clock), seconds in zip(clocks.items(), first, strict=True) if seconds < SHORT}
        if len(short) == len(clocks):
            return rounds(clocks, self.repeats, warm_up=0)
        few = min(self.repeats, max(3, int(LONG / sum(first))))
        seconds = rounds(clocks, few, warm_up=0)
        for name, more in rounds(short, self.repeats - few, warm_up=0).items():
            seconds[name] += more
        return seconds


def common_ratios(upper: list[float], lower: list[float]) -> dict[str, float]:
    """The spread of the quotients of the rounds that both took part in."""
    together = min(len(upper), len(lower))
    return ratios(upper[:together], lower[:together])


def maximum_clock(device: torch.device) -> tuple[float | None, str]:
    """The highest clock of the multiprocessors in Hz, and who said so."""
    if device.type != "cuda":
        return 1e9, "invented: there is no GPU"
    index = torch.cuda.current_device() if device.index is None else device.index
    if index not in _clocks:
        _clocks[index] = _asked_clock(index)
    return _clocks[index]


_clocks: dict[int, tuple[float | None, str]] = {}


def _asked_clock(index: int) -> tuple[float | None, str]:
    kilohertz = getattr(torch.cuda.get_device_properties(index), "clock_rate", None)
    if kilohertz:
        return kilohertz * 1e3, "clock_rate of torch's device properties, the highest"
    command = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return float(answer.split()[0]) * 1e6, "nvidia-smi, clocks.max.sm of the first device, the highest"
    except Exception:
        pass
    try:
        return torch.cuda.clock_rate(index) * 1e6, "torch.cuda.clock_rate, at the moment of asking"
    except Exception as error:
        return None, f"not known: {one_line(error)}"


def describe_device(session: Session) -> Record:
    """What the result file says of the device; the rates of copying and of exponentials are those of the floors."""
    device = session.device
    clock, source = maximum_clock(device)
    bytes_copied = 2**20 if session.quick else COPIED_BYTES
    from_, to = (torch.zeros(bytes_copied, dtype=torch.uint8, device=device) for _ in range(2))
    copy = statistics.median(session.rounds({"copy": lambda: to.copy_(from_)})["copy"])
    record: Record = {"device": str(device), "clock_hz": clock, "clock_from": source}
    record |= {"multiprocessors": 1, "exponentials_per_clock_and_multiprocessor": 16, "copied_buffer": bytes_copied}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        record |= {
            "name": properties.name,
            "capability": [properties.major, properties.minor],
            "multiprocessors": properties.multi_processor_count,
            "memory": properties.total_memory,
            "cache": properties.L2_cache_size,
            "cuda": torch.version.cuda,
        }
    rate = None if clock is None else 16 * clock * record["multiprocessors"]
    return {**record, "copied_bytes_per_second": 2 * bytes_copied / copy, "exponentials_per_second": rate}


def captured(run: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
    """A CUDA graph of a call, ready to be replayed, and the tensor that a replay fills."""
    if device.type != "cuda":
        result = run()
        return run, result
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph.replay, result
