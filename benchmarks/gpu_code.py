"""What the Triton kernels compile to, for a GPU that need not be there: registers, spills, instructions of the loops.

    python benchmarks/gpu_code.py [--architecture 90] [--quick] [--output results/gpu_code.json]

A kernel is one warp, and a multiprocessor issues four warps' instructions at a time: where nothing waits, a loop of i
instructions that advances s states of each thread by one step takes i / s / 128 clocks for each state and step. The
exponential unit does 16 in a clock, so 8 instructions for each state and step are as good as none. The loops over
states are what counts where N is large; what a tile costs besides is shared by its N states.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from common import RESULTS, scan_inputs
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from serpent_ir.ops import triton as backend
from serpent_ir.ops import triton_block
from serpent_ir.ops.problem import ScanProblem
from serpent_ir.text_file import write_json

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
SCALES = {"64 channels, 6 states": (64, 6, 2), "512 channels, 43 states": (512, 43, 16)}


class _Device:
    """As much of a Triton driver as compiling needs."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextlib.contextmanager
def compiling(target: GPUTarget) -> Iterator[list[tuple[str, Any]]]:
    """Within it, launching a kernel compiles it for `target` and does not run it. Yields (name, compiled kernel)."""
    compiled: list[tuple[str, Any]] = []

    def launcher(kernel: JITFunction, grid: Any) -> Any:
        def compile_only(*arguments: Any, **keywords: Any) -> None:
            compiled.append((kernel.__name__, kernel.run(*arguments, grid=grid, warmup=True, **keywords)))

        return compile_only

    usual, JITFunction.__getitem__ = JITFunction.__getitem__, launcher
    triton.runtime.driver.set_active(_Device(target))
    try:
        yield compiled
    finally:
        JITFunction.__getitem__ = usual


def compile_all(target: GPUTarget, channels: int, states: int, rank: int, dtype: torch.dtype) -> dict[str, Any]:
    """The kernels of a block forwards and backwards, by name; of variants the last."""
    size = 128  # large enough for the usual plan, with all lanes
    x, dt, b, c, dt_weight, dt_bias, a, skip = scan_inputs(size, channels, states, rank).values()
    rows = (tensor.to(dtype).flatten(1, 2) for tensor in (x, dt, b, c))
    problem = ScanProblem(*rows, a, dt_weight, dt_bias, skip, None, size, size, True)
    x, taps = x.to(dtype), torch.randn(channels, 1, 3, 3)
    with compiling(target) as compiled:
        backend.forward(problem, False)
        compiled[0] = ("summarise states", compiled[0][1])
        backend.backward(problem, problem.x, problem.x)
        triton_block.convolve(x, taps, taps[:, 0, 0, 0], torch.empty_like(x))
        triton_block.convolve_backward(x, x, taps, taps[:, 0, 0, 0])
        triton_block.gate(x, x, taps[:, 0, 0, 0], taps[:, 0, 0, 0], 1e-5, torch.empty_like(x))
        triton_block.gate_backward(x, x, x, taps[:, 0, 0, 0], taps[:, 0, 0, 0], 1e-5)
    return dict(compiled)


def read(binary: bytes) -> dict[str, Any]:
    """Registers of a thread, bytes of its stack (spills), and the loops, innermost first as they stand in the code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        resources, code = (
            subprocess.run([TOOLS / "cuobjdump", option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", resources)
    assert found is not None
    lines = re.findall(r"^\s+/\*([0-9a-f]{4,5})\*/\s+(?:@!?U?P\w+ )?([\w.]+)(.*?);", code, re.MULTILINE)
    instructions = [(int(address, 16), name.split(".")[0], rest) for address, name, rest in lines]
    loops = []
    for address, name, rest in instructions:
        target = re.search(r"0x([0-9a-f]+)", rest) if name == "BRA" else None
        start = int(target.group(1), 16) if target else address
        if start < address:
            body = collections.Counter(kind for at, kind, _ in instructions if start <= at <= address)
            loops.append({"instructions": sum(body.values()), **{k: body[k] for k in ("MUFU", "SHFL", "LDG", "STG")}})
    return {"registers": int(found[1]), "stack_bytes": int(found[2]), "instructions": len(lines), "loops": loops}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--architecture", type=int, default=90, help="compute capability times ten, such as 80, 90, 100"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu_code.json")
    parser.add_argument("--quick", action="store_true", help="the first scale in float32 only")
    options = parser.parse_args()
    target = GPUTarget("cuda", options.architecture, 32)
    result: dict[str, Any] = {"triton": triton.__version__, "architecture": options.architecture, "kernels": {}}
    for scale, sizes in list(SCALES.items())[: 1 if options.quick else None]:
        for dtype in (torch.float32, torch.bfloat16)[: 1 if options.quick else None]:
            label = f"{scale}, {str(dtype).removeprefix('torch.')}"
            print(label)
            kernels = compile_all(target, *sizes, dtype).items()
            result["kernels"][label] = {name: read(kernel.asm["cubin"]) for name, kernel in kernels}
            for name, found in result["kernels"][label].items():
                loops, spilled = ", ".join(str(loop["instructions"]) for loop in found["loops"]), found["stack_bytes"]
                print(f"  {name:18} {found['registers']:4} registers {spilled:4} bytes spilled; loops {loops}")
    write_json(result, options.output)


if __name__ == "__main__":
    main()
