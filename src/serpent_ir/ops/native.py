"""The CPU backend: compiled kernels (csrc/) that walk the map in place, forwards and backwards.

Same functions as `portable`.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from serpent_ir.errors import BackendError
from serpent_ir.ops.problem import CHUNK, ScanProblem

INSTRUCTION_SET_VARIABLE = "SERPENT_INSTRUCTION_SET"
_LINES_OF_SLOT = 8

unavailable: str | None = None
"""Why the backend cannot run at all, or None."""
try:
    import serpent_ir.ops._native as _native
except ImportError as error:
    unavailable = f"the compiled part is not installed ({error}); installing again with a C++17 compiler builds it"


def instruction_sets() -> list[str]:
    """Instruction sets that this build has and this processor can run, widest first."""
    return [] if unavailable else list(_native.instruction_sets())


def has_openmp() -> bool:
    """Whether the compiled part was built with OpenMP."""
    return unavailable is None and bool(_native.openmp)


def instruction_set() -> str:
    """The one in use: `SERPENT_INSTRUCTION_SET`, else the widest. Raises `BackendError` for one that cannot run."""
    sets = instruction_sets()
    asked = os.environ.get(INSTRUCTION_SET_VARIABLE)
    if asked and asked not in sets:
        raise BackendError(f"{INSTRUCTION_SET_VARIABLE}={asked}", f"one of {', '.join(sets)}")
    return asked or sets[0]


def kept_states(p: ScanProblem) -> int:
    """How many states of a sequence `forward` keeps for `backward`: those between intervals."""
    return p.intervals - 1


def forward(p: ScanProblem, keep_states: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, L, D), the last states (B, K, D, N), the kept states (B, K, intervals - 1, N, D), none unless asked for."""
    p = p.in_state_dtype()
    y = p.x.new_empty(p.x.shape)
    last = p.x.new_empty(p.batch, p.directions, p.channels, p.states)
    kept = p.x.new_empty(p.batch, p.directions, p.intervals - 1 if keep_states else 0, p.states, p.channels)
    run = _Run(p, backward=False)
    outputs = run.create("Outputs")
    outputs.y, outputs.kept, outputs.last = y.data_ptr(), _address(kept if keep_states else None), last.data_ptr()
    run.problem.forward(run.instruction_set, outputs)
    return y, last, kept


def survey_band(p: ScanProblem, after: Tensor) -> Tensor:
    """What a band of rows of one image makes of states, without its results: see `scan_band` for segments.

    `after` (segments, N, D) becomes the states after each segment, from zero before it; returns the sums of its step
    sizes (segments, D). Both only for directions 1, 2, ...: the path of direction 0 goes along with the bands.
    """
    step_sums = after.new_zeros(after.shape[0], after.shape[2])
    run = _Run(p, backward=False, share_directions=False)
    band = run.create("Band")
    band.after, band.step_sum = after.data_ptr(), step_sums.data_ptr()
    run.problem.band(run.instruction_set, band)
    return step_sums


def scan_band(p: ScanProblem, states: Tensor) -> Tensor:
    """y (1, L, D) of a band of rows of one image, whose paths begin with `states` (segments, N, D).

    A segment is a stretch of a path within the band: all of it for orders along rows, a column of the band for those
    along columns. Segments are numbered by direction, then in the direction's own order. In the place of `states`,
    dense and of x's type, come those after the segments.
    """
    y = p.x.new_empty(p.x.shape)
    run = _Run(p, backward=False, share_directions=False)
    band = run.create("Band")
    band.before = band.after = states.data_ptr()
    band.y = y.data_ptr()
    run.problem.band(run.instruction_set, band)
    return y


def backward(p: ScanProblem, grad_y: Tensor, kept: Tensor) -> list[Tensor | None]:
    """Gradients of the problem's tensors, None where one is None."""
    p, grad_y = p.in_state_dtype(), grad_y.to(p.state_dtype)
    grad_y, kept = grad_y.contiguous(), kept.contiguous()
    x, dt, b, c = (p.x.new_empty(tensor.shape) for tensor in (p.x, p.dt, p.b, p.c))
    # A sum over pixels for each image; the kernels always write those of a bias and of the direct path.
    a, dt_bias, skip = (p.x.new_empty(p.batch, *shape) for shape in (p.a.shape, p.a.shape[:2], p.a.shape[:2]))
    dt_weight, weight = (None if t is None else p.x.new_empty(p.batch, *t.shape) for t in (p.dt_weight, p.weight))
    run = _Run(p, backward=True)
    gradients = run.create("Gradients")
    gradients.grad_y, gradients.kept = grad_y.data_ptr(), kept.data_ptr()
    gradients.x, gradients.dt, gradients.b, gradients.c = x.data_ptr(), dt.data_ptr(), b.data_ptr(), c.data_ptr()
    gradients.a, gradients.dt_bias, gradients.skip = a.data_ptr(), dt_bias.data_ptr(), skip.data_ptr()
    gradients.dt_weight, gradients.weight = _address(dt_weight), _address(weight)
    run.problem.backward(run.instruction_set, gradients)
    return [
        x,
        dt,
        b,
        c,
        a.sum(0),
        None if dt_weight is None else dt_weight.sum(0),
        None if p.dt_bias is None else dt_bias.sum(0),
        None if p.skip is None else skip.sum(0),
        None if weight is None else weight.sum(0),
    ]


class _Run:
    """A problem as the compiled part takes it, with the memory that it needs meanwhile."""

    def __init__(self, p: ScanProblem, backward: bool, share_directions: bool = True) -> None:
        self._type = "Float64" if p.x.dtype == torch.float64 else "Float32"
        self._alive: list[Tensor] = []  # what the addresses point to
        self.instruction_set = instruction_set()
        self.problem = problem = self.create("Problem")
        problem.batch, problem.height, problem.width, problem.channels = p.batch, p.height, p.width, p.channels
        problem.directions, problem.groups, problem.states, problem.rank = p.directions, p.groups, p.states, p.rank
        problem.interval, problem.softplus = p.interval, p.softplus
        problem.chunk = min(p.interval if backward else CHUNK, -(-p.length // 4) * 4)
        problem.threads = threads = torch.get_num_threads()
        problem.x = self._dense(p.x)
        for set_rows, rows in ((problem.set_dt, p.dt), (problem.set_b, p.b), (problem.set_c, p.c)):
            image, pixel, stream, number = rows.stride()  # (B, L, S, M); one pixel after the other, rows dense
            if (image != p.length * pixel and p.batch > 1) or (number != 1 and rows.shape[-1] > 1):
                rows, pixel, stream = rows.contiguous(), rows.shape[2] * rows.shape[3], rows.shape[3]
            set_rows(self._new(rows), pixel, stream)
        problem.a, problem.dt_bias = self._dense(p.a), self._dense(p.dt_bias)
        problem.dt_weight, problem.skip, problem.weight = map(self._dense, (p.dt_weight, p.skip, p.weight))
        # A wide slot reads the rows once for many channels; enough slots to keep the threads busy, and at most one for
        # each line of memory (16 numbers). Where that is not enough, the directions are worked on at the same time,
        # which takes a map for each, and added at the end. The result does not depend on any of this.
        independent, lines = p.batch * p.groups, -(-p.channels // (16 * p.groups))
        problem.slots = min(lines, max(-(-lines // _LINES_OF_SLOT), -(-threads // independent)))
        if share_directions and p.directions > 1 and independent * lines < threads:
            problem.partial = self._new(p.x.new_empty(p.directions - 1, *p.x.shape))
        bytes_needed = problem.scratch_bytes(self.instruction_set, backward)
        problem.scratch = self._new(torch.empty(bytes_needed, dtype=torch.uint8, device="cpu"))

    def create(self, name: str) -> Any:
        return getattr(_native, name + self._type)()

    def _new(self, tensor: Tensor) -> int:
        self._alive.append(tensor)
        return tensor.data_ptr()

    def _dense(self, tensor: Tensor | None) -> int:
        return 0 if tensor is None else self._new(tensor.contiguous())


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
