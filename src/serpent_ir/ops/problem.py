"""One scan as its backends see it: the arguments of the operator `serpent::scan`, checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from serpent_ir.errors import DeviceError, DtypeError, RangeError, ShapeError
from serpent_ir.ops.scan_order import ORDERS_OF_DIRECTIONS

CHUNK = 64
"""Steps that kernels work on at a time; states are kept for the backward pass at ends of chunks only."""


DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_INPUTS = ("x", "dt", "b", "c")
_TENSORS = (*_INPUTS, "a", "dt_weight", "dt_bias", "skip", "weight")


def state_dtype_of(x: Tensor) -> torch.dtype:
    """The type of the states for inputs of x's type: float64 for float64, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class ScanProblem:
    """One operator serves sequences and maps.

    x, dt, b and c have one type: float32, float64, bfloat16 or float16. All others have that of the states, float64 for
    float64 inputs, else float32.

    x: (B, L, D), the input, L = height * width pixels, channels last. A sequence is a map of height 1.
    dt: (B, L, K, R), low-rank step sizes; or (B, L, 1, D), those of every channel, when dt_weight is None.
    b, c: (B, L, S, N), one row for each of S = K * G streams: K directions, or G groups of channels (K or G is 1).
    a: (K, D, N), negative.
    dt_weight: (K, D, R) or None. dt_bias, skip: (K, D) or None.
    weight: (K, D, N) or None, a factor of c that depends on channel and state only.
    softplus: whether step sizes go through softplus.
    """

    x: Tensor
    dt: Tensor
    b: Tensor
    c: Tensor
    a: Tensor
    dt_weight: Tensor | None
    dt_bias: Tensor | None
    skip: Tensor | None
    weight: Tensor | None
    height: int
    width: int
    softplus: bool

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """The differentiable arguments, in their order."""
        return self.x, self.dt, self.b, self.c, self.a, self.dt_weight, self.dt_bias, self.skip, self.weight

    @property
    def state_dtype(self) -> torch.dtype:
        return state_dtype_of(self.x)

    def in_state_dtype(self) -> ScanProblem:
        """The same problem with inputs of the states' type."""
        if self.x.dtype == self.state_dtype:
            return self
        x, dt, b, c = (tensor.to(self.state_dtype) for tensor in (self.x, self.dt, self.b, self.c))
        return replace(self, x=x, dt=dt, b=b, c=c)

    @cached_property
    def batch(self) -> int:
        return self.x.shape[0]

    @cached_property
    def length(self) -> int:
        return self.x.shape[1]

    @cached_property
    def channels(self) -> int:
        return self.x.shape[2]

    @cached_property
    def directions(self) -> int:
        return self.a.shape[0]

    @cached_property
    def states(self) -> int:
        return self.a.shape[2]

    @cached_property
    def streams(self) -> int:
        return self.b.shape[2]

    @cached_property
    def groups(self) -> int:
        return self.streams // self.directions

    @cached_property
    def rank(self) -> int:
        """R; 0 when the step sizes are those of every channel."""
        return 0 if self.dt_weight is None else self.dt_weight.shape[2]

    @cached_property
    def interval(self) -> int:
        """Steps between two states that are kept for the backward pass: CHUNK times a power of two.

        The kept states take at most a tenth of the memory of x and the rows.
        """
        inputs = self.channels + self.directions * self.rank + 2 * self.streams * self.states
        if self.dt_weight is None:
            inputs += self.channels
        interval = CHUNK
        while interval * inputs < 10 * self.directions * self.channels * self.states:
            interval *= 2
        return interval

    @cached_property
    def intervals(self) -> int:
        """How many stretches of `interval` steps a sequence has; all but the last end with a kept state."""
        return (self.length + self.interval - 1) // self.interval

    def check(self) -> None:
        """Raises ShapeError, DtypeError, DeviceError or RangeError unless all is as the kernels rely on.

        The public functions have checked their own arguments, by their own names, before. A is looked at on the CPU
        only: elsewhere that would wait for the device.
        """
        self._check_forms()
        if self.a.device.type == "cpu" and not self.a.amax().item() < 0:  # NaN is not below 0 either
            raise RangeError(
                f"A has entries from {self.a.min().item():g} to {self.a.max().item():g}",
                "negative entries only",
                "Parametrise A as -exp(A_log): a system with A >= 0 does not decay.",
            )

    def _check_forms(self) -> None:
        x, a, b = self.x, self.a, self.b
        if x.ndim != 3 or a.ndim != 3 or b.ndim != 4 or 0 in (*x.shape, *a.shape, b.shape[2]):
            came = f"x {tuple(x.shape)}, a {tuple(a.shape)}, b {tuple(b.shape)}"
            raise ShapeError(came, "(B, L, D), (K, D, N), (B, L, S, N), nothing empty")
        if self.height * self.width != self.length or self.height < 1:
            raise ShapeError(f"height {self.height} and width {self.width}", f"height * width = L = {self.length}")
        if self.directions not in ORDERS_OF_DIRECTIONS or self.streams != self.directions * self.groups:
            raise ShapeError(f"{self.directions} directions and {self.streams} rows", "K = 1, 2 or 4, and K * G rows")
        if 1 not in (self.directions, self.groups) or self.channels % self.groups:
            raise ShapeError(
                f"{self.groups} groups of {self.channels} channels in {self.directions} directions",
                "a number of groups that divides D, and either one group or one direction",
            )
        if self.dt_weight is not None and (self.groups != 1 or self.dt_weight.ndim != 3 or self.rank < 1):
            came = f"dt_weight {tuple(self.dt_weight.shape)} with {self.groups} groups"
            raise ShapeError(came, "(K, D, R) with R of at least 1, and one group")
        if self.dt_weight is None and self.directions != 1:
            raise ShapeError(
                f"no dt_weight with {self.directions} directions", "full-rank step sizes with one direction only"
            )
        pixels, parameters = (self.batch, self.length), (self.directions, self.channels)
        states, rows = (*parameters, self.states), (*pixels, self.streams, self.states)
        dt = (*pixels, 1, self.channels) if self.dt_weight is None else (*pixels, self.directions, self.rank)
        expected = (x.shape, dt, rows, rows, states, (*parameters, self.rank), parameters, parameters, states)
        for name, tensor, shape in zip(_TENSORS, self.tensors, expected, strict=True):
            if tensor is None:
                continue
            if tensor.shape != shape:
                raise ShapeError(f"{name} of serpent::scan has shape {tuple(tensor.shape)}", str(tuple(shape)))
            dtype = x.dtype if name in _INPUTS else self.state_dtype
            if tensor.dtype != dtype or x.dtype not in DTYPES:
                came = f"{name} of {tensor.dtype} with x of {x.dtype}"
                raise DtypeError(came, "x, dt, b, c of one floating type; the others float64 if that is, else float32")
            if tensor.device != x.device:
                raise DeviceError(f"{name} lies on {tensor.device}, x on {x.device}", "one device for all")

    def check_backward(self, grad_y: Tensor, kept: Tensor, kept_states: int) -> None:
        """Raises ShapeError, DtypeError or DeviceError unless these and the problem fit a backward pass.

        grad_y is the gradient of y, kept what the forward pass kept, so many states of a sequence; it has looked at A.
        """
        self._check_forms()
        shape = (self.batch, self.directions, kept_states, self.states, self.channels)
        expected = (("the gradient of y", grad_y, self.x.shape, self.x.dtype), ("kept", kept, shape, self.state_dtype))
        for name, tensor, form, dtype in expected:
            if tensor.shape != form:
                raise ShapeError(
                    f"{name} has shape {tuple(tensor.shape)}",
                    str(tuple(form)),
                    "A compiled function stays with the backend that it was compiled with: use the same one.",
                )
            if tensor.dtype != dtype:
                raise DtypeError(f"{name} of {tensor.dtype}", str(dtype))
            if tensor.device != self.x.device:
                raise DeviceError(f"{name} lies on {tensor.device}", f"x's, {self.x.device}")
