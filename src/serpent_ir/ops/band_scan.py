"""The scan of a map that is never held as a whole: band after band of its rows, to the same result (README.md).

A path along columns crosses every band once a column, and the paths against the order of the bands enter from the far
end. So each band is seen twice: `survey` notes what it makes of states that enter it, `scan` is given those that do.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from serpent_ir.errors import DtypeError
from serpent_ir.ops import native
from serpent_ir.ops.problem import ScanProblem
from serpent_ir.ops.scan_order import ORDERS_OF_DIRECTIONS

_SEGMENTS_AT_ONCE = 256  # whose decays are held


class States(Protocol):
    """What a list of tensors of one shape does."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Tensor: ...
    def __setitem__(self, index: int, value: Tensor, /) -> None: ...
    def append(self, value: Tensor, /) -> None: ...


class BandScan:
    """`selective_scan_2d` of one image on the native backend, for bands of rows that cover its map from top to bottom.

    Call `survey` for every band in turn, then `scan` for the same bands again. What is held in between is `kept`, for
    each band (N + 1) D numbers a column (K = 4) and as many once; and four times as much besides, whatever the number
    of bands.

    Args:
        width: W, of the map. dt_weight (K, D, R), dt_bias (K, D), A (K, D, N), D (K, D): as `selective_scan_2d` takes
            them, float32 or float64 on the CPU.
        kept: where it is held, one tensor a band; a list by default.
    """

    def __init__(
        self,
        width: int,
        dt_weight: Tensor,
        dt_bias: Tensor,
        A: Tensor,
        D: Tensor,
        kept: States | None = None,
    ) -> None:
        self._parameters = A, dt_weight, dt_bias, D
        self._rates = A.transpose(1, 2).contiguous()  # (K, N, D)
        self._kept: States = [] if kept is None else kept
        self._parts: list[tuple[int, slice, bool, bool]] = []
        """For each direction: its number, its segments, whether it runs against the bands, whether along columns."""
        segments = 0
        for k, order in enumerate(ORDERS_OF_DIRECTIONS[A.shape[0]]):
            count = width if order % 2 else 1
            self._parts.append((k, slice(segments, segments + count), order >= 2, order % 2 == 1))
            segments += count
        self._forwards = sum(part.stop - part.start for _, part, against, _ in self._parts if not against)
        # What the bands so far make of states that enter them: an addition, and a decay as a sum of step sizes. In the
        # second round: the states that enter the next band.
        self._states = A.new_zeros(segments, A.shape[2], A.shape[1])
        self._step_sums = A.new_zeros(segments, A.shape[1])
        self._next: int | None = None

    def survey(self, x: Tensor, dt_low: Tensor, B: Tensor, C: Tensor) -> None:
        """A band's x (h, W, D), dt_low (h, W, K, R), B and C (h, W, K, N), in the order of the bands."""
        if len(self._parts) == 1:
            return  # its only path goes along with the bands
        after = torch.zeros_like(self._states)
        step_sums = native.survey_band(self._problem(x, dt_low, B, C), after)
        for k, part, against, columns in self._parts:
            if against:  # this band comes first, those above follow
                self._pass(k, self._step_sums[part], after[part], self._states[part], self._states[part])
            elif columns:
                self._pass(k, step_sums[part], self._states[part], after[part], self._states[part])
        self._step_sums += step_sums
        mine = slice(self._forwards, None)
        self._kept.append(torch.cat([after[mine], step_sums[mine, None]], dim=1))

    def scan(self, x: Tensor, dt_low: Tensor, B: Tensor, C: Tensor) -> Tensor:
        """y (h, W, D) of a band, given as to `survey` and in the same order."""
        if self._next is None:
            self._follow_paths()
            self._next = 0
        if len(self._kept):
            self._states[self._forwards :] = self._kept[self._next][:, :-1]
        self._next += 1
        return native.scan_band(self._problem(x, dt_low, B, C), self._states).view(x.shape)

    def _follow_paths(self) -> None:
        """From what each band makes of a state to the states that enter it."""
        for k, part, _, columns in self._parts:
            state = torch.zeros_like(self._states[0])
            for segment in range(part.start, part.stop):  # what a column makes of a state gives way to what enters it
                addition = self._states[segment].clone()
                self._states[segment] = state
                if columns:
                    state = addition.addcmul_(torch.exp(self._step_sums[segment] * self._rates[k]), state)
        entering = self._states[self._forwards :]
        for band in reversed(range(len(self._kept))):
            kept, entered = self._kept[band], entering.clone()
            for k, part, against, _ in self._parts:
                if against:
                    mine = slice(part.start - self._forwards, part.stop - self._forwards)
                    self._pass(k, kept[mine, -1], entered[mine], kept[mine, :-1], entering[mine])
            kept[:, :-1] = entered
            self._kept[band] = kept

    def _pass(self, k: int, step_sums: Tensor, state: Tensor, addition: Tensor, out: Tensor) -> None:
        """What becomes of states (segments, N, D): addition plus state times the decay that follows from step_sums."""
        for sums, part, added, to in zip(
            *(tensor.split(_SEGMENTS_AT_ONCE) for tensor in (step_sums, state, addition, out)), strict=True
        ):
            torch.addcmul(added, torch.exp(sums.unsqueeze(1) * self._rates[k]), part, out=to)

    def _problem(self, x: Tensor, dt_low: Tensor, B: Tensor, C: Tensor) -> ScanProblem:
        a, dt_weight, dt_bias, skip = self._parameters
        if x.dtype not in (torch.float32, torch.float64) or x.dtype != a.dtype:
            raise DtypeError(f"a band of {x.dtype} with A of {a.dtype}", "float32 or float64, one type for all")
        height, width, _ = x.shape
        x, dt_low, B, C = (tensor.flatten(0, 1).unsqueeze(0) for tensor in (x, dt_low, B, C))
        problem = ScanProblem(x, dt_low, B, C, a, dt_weight, dt_bias, skip, None, height, width, True)
        problem.check()
        return problem
