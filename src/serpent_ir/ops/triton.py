"""The GPU backend: Triton kernels (triton_kernels.py), chunk-parallel along the sequence, forwards and backwards.

Same functions as `portable`; float32, bfloat16 or float16 inputs, float32 states. Nothing waits for the device, and
nothing is atomic: the same device gives the same bits every time.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from serpent_ir.errors import ShapeError
from serpent_ir.ops.problem import ScanProblem

OLDEST_DEVICE = (7, 5)
"""The least compute capability of an NVIDIA device that the kernels have been compiled for."""
OLDEST = (3, 3)
"""The first version of Triton whose language has the tuples that the kernels are made of."""
STEPS = 4
"""Steps that a program works on at a time; a chunk is a multiple of them."""
LANES = (128, 64, 32)
"""Numbers of a step that a program works on, chunks times channels: four, two or one for each of its 32 threads. The
first is the most efficient, the last makes the most programs of a small map."""
SMALLEST_CHUNK = 16
LONGEST_CHUNK = 512
PROGRAMS_PER_MULTIPROCESSOR = 8
"""One warp each: enough of them hide the latency of memory."""
CHUNKS_OF_GROUP = 64
"""Chunks that one program carries the state through; more are carried as groups, and these as chunks."""
WIDE_FROM = 2**31
"""Numbers of an image from which on offsets within it are 64 bits wide."""
_CARRY_BLOCK = 128


def why_unavailable(device: torch.device, dtype: torch.dtype | None = None) -> str | None:
    """Why the backend cannot run on that device with inputs of that type, or None when it can."""
    if device.type != "cuda" and not (device.type == "cpu" and is_interpreted()):
        return f"it runs on CUDA and ROCm devices, not on {device.type}"
    if dtype == torch.float64:
        return "its states are float32, not float64"
    return _why_not_installed() or _why_not_on(device)


@functools.cache
def _why_not_on(device: torch.device) -> str | None:
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < OLDEST_DEVICE:
        oldest = ".".join(map(str, OLDEST_DEVICE))
        return f"the device's compute capability is {capability[0]}.{capability[1]}, and it needs {oldest}"
    if "CC" not in os.environ and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "Triton needs a C compiler (cc, gcc or clang) to launch kernels, and there is none"
    return None


@functools.cache
def _why_not_installed() -> str | None:
    try:
        import triton
    except Exception as error:  # whatever a broken installation raises
        return f"the package triton cannot be imported ({error})"
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < OLDEST:
        return (
            f"triton {triton.__version__} is too old; it needs {'.'.join(map(str, OLDEST))}, which comes with torch 2.7"
        )
    return None


def is_interpreted() -> bool:
    """Whether Triton runs kernels step by step on the CPU, for tests: TRITON_INTERPRET=1."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def multiprocessors(device: torch.device) -> int:
    """How many the device has."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@dataclass(frozen=True)
class Plan:
    """How a problem is cut: into `chunks` chunks of `chunk` steps, `parts` blocks of `block` channels in each group.

    A program has one block of `abreast` chunks.
    """

    chunk: int
    chunks: int
    block: int
    parts: int
    abreast: int

    @staticmethod
    def of(p: ScanProblem, device_multiprocessors: int) -> Plan:
        """Long chunks, whose states cost little; shorter ones, then fewer lanes, where that leaves the device idle."""
        in_group = p.channels // p.groups
        columns = p.width * -(-p.height // STEPS) if p.directions == 4 else 0
        steps = STEPS * max(-(-p.length // STEPS), columns)  # each line takes a whole number of tiles
        needed = PROGRAMS_PER_MULTIPROCESSOR * device_multiprocessors
        for lanes in LANES:
            block = min(lanes, max(16, power_of_two(in_group)))
            parts, abreast = -(-in_group // block), lanes // block
            blocks = p.batch * p.groups * parts
            chunk = min(LONGEST_CHUNK, max(64, power_of_two(8 * p.states)))
            while chunk > SMALLEST_CHUNK and blocks * (steps // (chunk * abreast)) < needed:
                chunk //= 2
            if blocks * (steps // (chunk * abreast)) >= needed:
                break
        return Plan(chunk, -(-steps // chunk), block, parts, abreast)


def power_of_two(number: int) -> int:
    """The smallest that is not below `number`."""
    return 1 << (number - 1).bit_length()


def kept_states(p: ScanProblem) -> int:
    """How many states of a sequence `forward` keeps for `backward`: none, it finds them together with the adjoints."""
    return 0


def forward(p: ScanProblem, keep_states: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, L, D), the last states (B, K, D, N), and no kept states (B, K, 0, N, D)."""
    run = _Run(p)
    y = p.x.new_empty(p.x.shape)
    total = y if y.dtype == torch.float32 else run.empty(*p.x.shape)
    last = run.outputs(total, y)
    return y, last, run.empty(p.batch, p.directions, 0, p.states, p.channels)


def backward(p: ScanProblem, grad_y: Tensor, kept: Tensor) -> list[Tensor | None]:
    """Gradients of the problem's tensors, None where one is None."""
    return _Run(p).gradients(grad_y.contiguous())


class _Run:
    """A problem as the kernels take it."""

    def __init__(self, p: ScanProblem) -> None:
        from serpent_ir.ops import triton_kernels

        self.kernels = triton_kernels
        self.p, self.plan = p, Plan.of(p, multiprocessors(p.x.device))
        if self.plan.chunks * self.plan.chunk >= 2**31:
            raise ShapeError(f"{p.length} pixels", "fewer than 2^31 for the backend triton")
        self.x = p.x.contiguous()
        self.dt, self.b, self.c = rows = [_with_dense_rows(rows) for rows in (p.dt, p.b, p.c)]
        # States come before channels, so that lanes read neighbours; and 2^x is faster than e^x.
        self.a = self.empty(p.directions, p.states, p.channels)
        torch.mul(p.a.transpose(1, 2), math.log2(math.e), out=self.a)
        unused = self.a  # for what is not there: a kernel wants some address
        self.dt_weight, self.weight = (
            unused if t is None else t.transpose(1, 2).contiguous() for t in (p.dt_weight, p.weight)
        )
        self.dt_bias, self.skip = (unused if t is None else t.contiguous() for t in (p.dt_bias, p.skip))
        self.strides = [stride for tensor in rows for stride in tensor.stride()[1:3]]
        self.sizes = (p.height, p.width, p.channels, p.states)
        self.cut = (self.plan.chunks, self.plan.chunk, p.groups * self.plan.parts)
        widest = max(p.channels, p.streams * p.states, p.directions * p.rank, *self.strides)
        self.options = {
            "K": p.directions,
            "G": p.groups,
            "R": p.rank,
            "BIAS": p.dt_bias is not None,
            "WEIGHT": p.weight is not None,
            "SOFTPLUS": p.softplus,
            "EVEN": p.channels // p.groups % self.plan.block == 0,
            "WIDE": p.length * widest >= WIDE_FROM,
            "STEPS": STEPS,
            "CHUNKS": self.plan.abreast,
            "BLOCK": self.plan.block,
            "num_warps": 1,
            "num_stages": 1,  # loads must not be moved ahead of stores
        }
        self.programs = p.batch * p.groups * self.plan.parts * -(-self.plan.chunks // self.plan.abreast)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.x.new_empty(shape, dtype=dtype)

    def of_chunks(self, *shape: int) -> Tensor:
        """An empty tensor with something for each image, direction and chunk."""
        return self.empty(self.p.batch, self.p.directions, self.plan.chunks, *shape)

    def outputs(self, total: Tensor, y: Tensor) -> Tensor:
        """Fills y, with `total` for sums on the way; returns the last states (B, K, D, N)."""
        p = self.p
        states = self.of_chunks(p.states, p.channels)
        with on_device(self.x.device):
            last = self._enter(states, self._summarise(states), flip=1)
            for axis in range(_axes(p)):
                self.kernels.outputs[(self.programs,)](
                    self.x, self.dt, self.b, self.c, self.a, self.dt_weight, self.dt_bias, self.skip, self.weight,
                    states, total, y, *self.sizes, *self.cut, axis, *self.strides,
                    SKIP=p.skip is not None, APART=p.x.dtype != torch.float32, **self.options,
                )  # fmt: skip
        return last

    def gradients(self, grad_y: Tensor) -> list[Tensor | None]:
        """Gradients of the problem's tensors, in their order."""
        p, plan = self.p, self.plan
        pixels = (p.batch, p.length)
        states, adjoints = (self.of_chunks(p.states, p.channels) for _ in range(2))
        noted = self.empty(p.batch, plan.chunks, plan.chunk // STEPS - 1, p.states, p.channels)
        x = p.x.new_empty(p.x.shape)
        total = x if x.dtype == torch.float32 else self.empty(*p.x.shape)
        # Sums over the channels of a block; where a group has one block only, they are the gradients.
        dtype = p.x.dtype if plan.parts == 1 else torch.float32
        b, c = (self.empty(plan.parts, *pixels, p.streams, p.states, dtype=dtype) for _ in range(2))
        if p.dt_weight is None:
            dt = self.empty(1, *pixels, 1, p.channels, dtype=p.x.dtype)
        else:
            dt = self.empty(plan.parts, *pixels, p.directions, p.rank, dtype=dtype)
        # Sums over the pixels of a chunk.
        a, dt_weight = self.of_chunks(p.states, p.channels), self.of_chunks(p.rank, p.channels)
        weight = a if p.weight is None else torch.empty_like(a)
        dt_bias, skip = (a if t is None else self.of_chunks(p.channels) for t in (p.dt_bias, p.skip))
        with on_device(self.x.device):
            sums = self._summarise(states, grad_y, adjoints)
            self._enter(states, sums, flip=1)
            self._enter(adjoints, sums, flip=-1)
            for axis in range(_axes(p)):
                self.kernels.gradients[(self.programs,)](
                    self.x, self.dt, self.b, self.c, self.a, self.dt_weight, self.dt_bias, self.skip, self.weight,
                    grad_y, states, adjoints, noted, total, x, dt, b, c, a, dt_weight, dt_bias, skip, weight,
                    p.batch, *self.sizes, *self.cut, axis, *self.strides,
                    SKIP=p.skip is not None, APART=p.x.dtype != torch.float32, **self.options,
                )  # fmt: skip
        return [
            x,
            *(rows.sum(0).to(p.x.dtype) if len(rows) > 1 else rows[0] for rows in (dt, b, c)),
            a.sum((0, 2)).transpose(1, 2).contiguous(),
            None if p.dt_weight is None else dt_weight.sum((0, 2)).transpose(1, 2).contiguous(),
            None if p.dt_bias is None else dt_bias.sum((0, 2)),
            None if p.skip is None else skip.sum((0, 2)),
            None if p.weight is None else weight.sum((0, 2)).transpose(1, 2).contiguous(),
        ]

    def _summarise(self, states: Tensor, grad_y: Tensor | None = None, adjoints: Tensor | None = None) -> Tensor:
        """Fills `states`, and `adjoints`, with what chunks do; returns the sums of their step sizes (B, K, C, D)."""
        sums = self.of_chunks(self.p.channels)
        self.kernels.summarise[(self.programs * self.p.directions,)](
            self.x, self.dt, self.b, self.c, self.a, self.dt_weight, self.dt_bias, self.weight,
            self.x if grad_y is None else grad_y, states, states if adjoints is None else adjoints, sums,
            *self.sizes, *self.cut, *self.strides, ADJOINT=adjoints is not None, **self.options,
        )  # fmt: skip
        return sums

    def _enter(self, states: Tensor, sums: Tensor, flip: int) -> Tensor:
        """Replaces what chunks do (B, K, C, N, D) by the states that enter them; returns those that leave the last."""
        last = self.empty(*states.shape[:2], states.shape[4], states.shape[3])
        if states.shape[2] <= CHUNKS_OF_GROUP:
            self._carry(states, sums, flip, APPLY=True, starts=None, last=last)
            return last
        groups = -(-states.shape[2] // CHUNKS_OF_GROUP)
        of_groups = self.empty(*states.shape[:2], groups, *states.shape[3:])
        sums_of_groups = self.empty(*states.shape[:2], groups, states.shape[4])
        self._carry(states, sums, flip, APPLY=False, of_groups=of_groups, sums_of_groups=sums_of_groups)
        self._enter(of_groups, sums_of_groups, flip=0)
        self._carry(states, sums, flip, APPLY=True, starts=of_groups, last=last)
        return last

    def _carry(
        self, states: Tensor, sums: Tensor, flip: int, APPLY: bool, starts: Tensor | None = None,
        last: Tensor | None = None, of_groups: Tensor | None = None, sums_of_groups: Tensor | None = None,
    ) -> None:  # fmt: skip
        batch, directions, chunks, count, channels = states.shape
        elements = count * channels
        blocks, groups = -(-elements // _CARRY_BLOCK), -(-chunks // CHUNKS_OF_GROUP)
        starts_, last_, groups_, sums_ = (states if t is None else t for t in (starts, last, of_groups, sums_of_groups))
        self.kernels.carry[(batch * directions * groups * blocks,)](
            states, sums, self.a, starts_, last_, groups_, sums_,
            chunks, CHUNKS_OF_GROUP, elements, channels, blocks,
            K=directions, FLIP=flip, APPLY=APPLY, HAS_STARTS=starts is not None,
            BLOCK=_CARRY_BLOCK, num_warps=4, num_stages=1,
        )  # fmt: skip


def _axes(p: ScanProblem) -> int:
    """Along rows only, or along columns too."""
    return 2 if p.directions == 4 else 1


def _with_dense_rows(rows: Tensor) -> Tensor:
    """(B, L, S, M), its numbers side by side, images as far apart as their pixels take; a copy where it must be one."""
    image, pixel, _, number = rows.stride()
    if (image != rows.shape[1] * pixel and rows.shape[0] > 1) or (number != 1 and rows.shape[3] > 1):
        return rows.contiguous()
    return rows


def on_device(device: torch.device) -> Any:
    """Triton launches on the current device: makes this the one."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
