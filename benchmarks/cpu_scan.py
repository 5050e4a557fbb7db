"""What cpu.py measures of the scan, a function for each of its parts; each gives what stands in the result file.

Times are seconds unless a name says otherwise, as median, quartiles and number of repeats. What is compared is measured
in rounds, and a ratio is the median, with quartiles, of the ratios of single rounds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import Options, ratios, rounds, scan_inputs, spread
from torch import Tensor

from serpent_ir.ops import selective_scan_2d

EXPONENTIALS = 262144  # stay in the cache, and are enough for torch to use all threads
SCALES = {  # of an image of 256 x 256: size, channels, states, rank
    "serpent-h": ((256, 64, 6, 2), (128, 128, 11, 4), (64, 256, 22, 8), (32, 512, 43, 16)),
    "serpent-b": ((64, 64, 6, 2), (32, 128, 11, 4), (16, 256, 22, 8), (8, 512, 43, 16)),
}
BIT_THREADS = (1, 2, 3, 8, 64)

Scale = tuple[int, int, int, int]


def scales(model: str, options: Options) -> list[Scale]:
    return [(size // 8 if options.quick else size, *rest) for size, *rest in SCALES[model]]  # type: ignore[misc]


def map_record(size: int, channels: int, states: int, rank: int) -> dict[str, int]:
    return {"size": size, "channels": channels, "states": states, "rank": rank}


class Scan:
    """The four-direction scan of one map, ready to be timed. `forward` keeps nothing, `keep` what `backward` needs."""

    def __init__(self, inputs: dict[str, Tensor], upstream: Tensor | None = None) -> None:
        self.inputs = inputs
        self.leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        self.upstream = torch.randn_like(inputs["x"]) if upstream is None else upstream

    def forward(self) -> Tensor:
        with torch.inference_mode():
            return selective_scan_2d(*self.inputs.values())

    def keep(self) -> None:
        self.y = selective_scan_2d(*self.leaves.values())

    def backward(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.y, list(self.leaves.values()), self.upstream, retain_graph=True)


def floors(options: Options) -> dict[str, Any]:
    """What the machine can do at most: exponentials, multiplications, bytes to and from memory."""
    side, megabytes = (256, 8) if options.quick else (1024, 256)
    left, right = torch.rand(side, side), torch.rand(side, side)
    source = torch.rand(megabytes * 2**18)
    product, target = torch.empty_like(left), torch.zeros_like(source)
    seconds = rounds(
        {
            "exp": exponentials(40 * EXPONENTIALS),
            "gemm": lambda: torch.mm(left, right, out=product),
            "copy": lambda: target.copy_(source),
        },
        options.repeats,
    )
    return {
        "exponentials_per_second": spread(40 * EXPONENTIALS / value for value in seconds["exp"]),
        "gemm_flops": {"side": side, **spread(2 * side**3 / value for value in seconds["gemm"])},
        "copied_bytes_per_second": {  # read and written
            "buffer": megabytes * 2**20,
            **spread(2 * megabytes * 2**20 / value for value in seconds["copy"]),
        },
    }


def exponentials(elements: int) -> Callable[[], float]:
    """Seconds of torch.exp of as many elements, over and over in a buffer that stays in the cache.

    They follow from the median of the calls: other work on the machine delays each call that it meets a great deal.
    """
    values = torch.rand(EXPONENTIALS) - 1
    out = torch.empty_like(values)

    def run() -> float:
        calls = []
        for _ in range(math.ceil(elements / EXPONENTIALS)):
            start = time.perf_counter()
            torch.exp(values, out=out)
            calls.append(time.perf_counter() - start)
        return statistics.median(calls) * elements / EXPONENTIALS

    return run


def scan(options: Options) -> dict[str, Any]:
    """Forward and backward at Serpent-H's scales, forward at Serpent-B's."""
    return {
        "serpent-h": [scan_of_scale(*scale, options, whole=True) for scale in scales("serpent-h", options)],
        "serpent-b": [scan_of_scale(*scale, options, whole=False) for scale in scales("serpent-b", options)],
    }


def scan_of_scale(size: int, channels: int, states: int, rank: int, options: Options, whole: bool) -> dict[str, Any]:
    """whole: with the backward pass, and with the same pixels as a single row and as a single column."""
    inputs = scan_inputs(size, channels, states, rank)
    elements = size * size * 4 * channels * states
    square = Scan(inputs)
    functions: dict[str, Callable[[], object]] = {"exp": exponentials(elements), "forward": square.forward}
    if whole:
        row, column = (Scan(reshaped(inputs, *shape)) for shape in ((1, size * size), (size * size, 1)))
        functions |= {"row": row.forward, "column": column.forward}
        functions |= {"forward_for_training": square.keep, "backward": square.backward}
    seconds = rounds(functions, options.repeats)
    forward = seconds["forward"]
    result: dict[str, Any] = {
        "map": map_record(size, channels, states, rank),
        "elements": elements,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "nanoseconds": {name: 1e9 * statistics.median(values) / elements for name, values in seconds.items()},
        "forward_over_exp": ratios(forward, seconds["exp"]),
    }
    if whole:
        result["backward_over_forward"] = ratios(seconds["backward"], forward)
        result["square_over_row"] = ratios(forward, seconds["row"])
        result["square_over_column"] = ratios(forward, seconds["column"])
    return result


def reshaped(inputs: dict[str, Tensor], height: int, width: int) -> dict[str, Tensor]:
    """The same pixels as a map of another shape."""
    of_pixels = ("x", "dt_low", "B", "C")
    return {
        name: value.view(1, height, width, *value.shape[3:]) if name in of_pixels else value
        for name, value in inputs.items()
    }


def saved(options: Options) -> dict[str, Any]:
    """Bytes that autograd keeps for the backward pass of the scan, over those of its inputs."""
    return {"serpent-h": [saved_of_scale(*scale) for scale in scales("serpent-h", options)]}


def saved_of_scale(size: int, channels: int, states: int, rank: int) -> dict[str, Any]:
    one = Scan(scan_inputs(size, channels, states, rank))
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        one.keep()
    kept = sum(storage.nbytes() for storage in storages.values())
    given = sum(value.nbytes for value in one.inputs.values())
    shape = map_record(size, channels, states, rank)
    return {"map": shape, "saved_bytes": kept, "input_bytes": given, "saved_over_inputs": kept / given}


def denormals(options: Options) -> dict[str, Any]:
    """The scan where states become denormal numbers against the same scan where they do not.

    fading: an impulse at both ends of the map, nothing between. States lose 4 to 40 % a step, fall below the smallest
    normal number within the first eighth of the map and, rounded to nearest, would stay denormal for good; so do the
    gradients that come in. cut off: a step leaves a state less than 1e-21 of what it was; its size is such that
    softplus meets denormal numbers as well.
    """
    scale = scales("serpent-h", options)[1]
    states = scale[2]
    ordinary = scan_inputs(*scale)
    ordinary["dt_low"].zero_()
    ordinary["dt_bias"].fill_(math.log(math.expm1(0.5 / states)))
    impulses = torch.zeros_like(ordinary["x"])
    impulses[:, 0, 0] = impulses[:, -1, -1] = 1
    cases = {
        "ordinary": Scan(ordinary),
        "fading": Scan({**ordinary, "x": impulses}, upstream=impulses),
        "cut off": Scan({**ordinary, "dt_bias": torch.full_like(ordinary["dt_bias"], 50.0)}),
    }
    for case in cases.values():
        case.keep()
    seconds = rounds(
        {f"{name} {kind}": getattr(case, kind) for name, case in cases.items() for kind in ("forward", "backward")},
        options.repeats,
    )
    return {
        "map": map_record(*scale),
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratios": {
            f"{name} / ordinary, {kind}": ratios(seconds[f"{name} {kind}"], seconds[f"ordinary {kind}"])
            for name in ("fading", "cut off")
            for kind in ("forward", "backward")
        },
    }


def threads(options: Options) -> dict[str, Any]:
    """One thread against several at Serpent-H's scales; and whether the bits are the same for any number."""
    maps = scales("serpent-h", options)
    scans = [Scan(scan_inputs(*scale)) for scale in maps]
    times = [threads_of_scan(one, options) for one in scans]
    for one in scans:
        refuse_when_bits_differ(one)
    torch.set_num_threads(options.threads)
    return {
        "threads": options.threads,
        "bits_equal_for_threads": BIT_THREADS,
        "serpent-h": [{"map": map_record(*scale), **seconds} for scale, seconds in zip(maps, times, strict=True)],
    }


def threads_of_scan(one: Scan, options: Options) -> dict[str, Any]:
    one.keep()

    def on(count: int, run: Callable[[], object]) -> Callable[[], object]:
        def with_threads() -> object:
            torch.set_num_threads(count)
            return run()

        return with_threads

    kinds = {"forward": one.forward, "backward": one.backward}
    functions = {f"{kind} {count}": on(count, run) for kind, run in kinds.items() for count in (1, options.threads)}
    seconds = rounds(functions, max(2, options.repeats // 3))
    return {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "one_over_several": {
            kind: ratios(seconds[f"{kind} 1"], seconds[f"{kind} {options.threads}"]) for kind in kinds
        },
    }


def refuse_when_bits_differ(one: Scan) -> None:
    """Exit unless output and gradients have the same bits for every number of BIT_THREADS."""
    first: list[Tensor] = []
    for count in BIT_THREADS:
        torch.set_num_threads(count)
        one.keep()
        bits = [value.view(torch.int32) for value in (one.forward(), one.y.detach(), *one.backward())]
        first = first or bits
        if not all(torch.equal(value, expected) for value, expected in zip(bits, first, strict=True)):
            raise SystemExit(f"refused: the bits for {count} threads differ from those for {BIT_THREADS[0]}")
