"""The public functions: the selective scan of a sequence and of a map in four directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from serpent_ir.errors import DeviceError, DtypeError, ShapeError
from serpent_ir.ops.backends import check_name
from serpent_ir.ops.problem import DTYPES, state_dtype_of
from serpent_ir.ops.scan_operator import scan
from serpent_ir.ops.scan_order import ORDERS_OF_DIRECTIONS


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The selective scan (S6) of a sequence, with the shapes and the meaning of `mamba_ssm`'s function of this name.

    For every channel d and state n, with dt = softplus(delta + delta_bias) (or without softplus) and h[-1] = 0:

        h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t]        y[t] = (sum_n C[t] h[t] + D u[t]) * SiLU(z[t])

    Args:
        u: (B, D, L); float32, float64, bfloat16 or float16. States are float32 (float64 for float64 input).
        delta: (B, D, L), the step sizes.
        A: (D, N), real and negative.
        B, C: (D, N), constant in time; (B, N, L), shared by all channels; or (B, G, N, L), shared by groups of D / G.
        D: (D,), the weight of the direct path; none by default.
        z: (B, D, L), the gate; none by default.
        delta_bias: (D,), added to delta before softplus.
        delta_softplus: apply softplus to delta (+ delta_bias).
        return_last_state: also return the state after the last step. It carries no gradient, as in `mamba_ssm`.
        backend: "native", "triton" or "portable"; by default the best for the device (`serpent doctor` says which).

    Returns:
        y (B, D, L) in u's dtype; with `return_last_state` also the last state (B, D, N), float32 or float64.

    Raises:
        ShapeError, DtypeError, DeviceError: sizes, types or devices do not fit together.
        RangeError: A is not negative (checked on the CPU only).
        UnknownNameError, BackendError: there is no such backend, or it cannot run here.
        NotImplementedError: a gradient of its gradients is asked for (create_graph=True): there is none.

    Source: Gu and Dao, "Mamba" (2023), algorithm 2; Serpent, section 2.2.
    """
    _check_floating(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias)
    _check_dimensions("u", u, "(B, D, L)", 3)
    batch, channels, length = u.shape
    _check_dimensions("A", A, "(D, N)", 2)
    states = A.shape[1]
    _check_shape("delta", delta, "(B, D, L)", (batch, channels, length))
    _check_shape("A", A, "(D, N)", (channels, states))
    groups_of_b, groups_of_c = _check_rows("B", B, u, states), _check_rows("C", C, u, states)
    groups = max(groups_of_b, groups_of_c)
    if min(groups_of_b, groups_of_c) not in (1, groups):
        raise ShapeError(f"B has {groups_of_b} groups and C has {groups_of_c}", "the same number of groups")
    for name, vector in (("D", D), ("delta_bias", delta_bias)):
        if vector is not None:
            _check_shape(name, vector, "(D,)", (channels,))
    if z is not None:
        _check_shape("z", z, "(B, D, L)", (batch, channels, length))

    dtype = state_dtype_of(u)
    inputs = dtype if z is not None else _input_dtype(u, delta, B, C)  # the gate is applied before y is rounded
    x = u.to(inputs).transpose(1, 2)
    # A factor that is constant in time belongs to channel and state; the operator takes all of it as one weight of C,
    # because the state is linear in B.
    weight: Tensor | None = None
    for rows in (B, C):
        if rows.ndim == 2:
            weight = rows.to(dtype) if weight is None else weight * rows.to(dtype)
    y, last, _ = scan(
        x,
        delta.to(inputs).transpose(1, 2).unsqueeze(2),
        _rows_of_pixels(B, x, groups, states),
        _rows_of_pixels(C, x, groups, states),
        A.to(dtype).unsqueeze(0),
        None,
        None if delta_bias is None else delta_bias.to(dtype).unsqueeze(0),
        None if D is None else D.to(dtype).unsqueeze(0),
        None if weight is None else weight.unsqueeze(0),
        1,
        length,
        delta_softplus,
        "" if backend is None else check_name(backend),
        _needs_gradient(u, delta, A, B, C, D, delta_bias),
    )
    y = y.transpose(1, 2)
    if z is not None:
        y = y * F.silu(z.to(dtype))
    y = y.to(u.dtype)
    if not return_last_state:
        return y
    state = last[:, 0].detach()
    return y, state * B.detach().to(dtype) if B.ndim == 2 else state


def selective_scan_2d(
    x: Tensor,
    dt_low: Tensor,
    B: Tensor,
    C: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    *,
    backend: str | None = None,
) -> Tensor:
    """The selective scan of a feature map in K directions, their results added in place (SS2D).

    Direction k reads the map row by row (0), column by column (1), or in these orders backwards (2, 3); K = 2 reads the
    rows forwards and backwards. Step sizes are softplus(dt_bias + dt_weight @ dt_low), the recurrence is that of
    `selective_scan`. No copy of the map per direction is made.

    Args:
        x: (B, H, W, D), channels last; float32, float64, bfloat16 or float16. States are float32 (or float64).
        dt_low: (B, H, W, K, R), the low-rank step sizes.
        B, C: (B, H, W, K, N). Slices of one projection need not be contiguous.
        dt_weight: (K, D, R). dt_bias, D: (K, D). A: (K, D, N), negative.
        backend: "native", "triton" or "portable"; by default the best for the device.

    Returns:
        (B, H, W, D) in x's dtype.

    Raises:
        ShapeError, DtypeError, DeviceError, RangeError, UnknownNameError, BackendError, NotImplementedError: as
        `selective_scan`.

    Source: Serpent, section 2.3 and figure 2; Liu et al., "VMamba" (2024), SS2D.
    """
    _check_floating(x=x, dt_low=dt_low, B=B, C=C, dt_weight=dt_weight, dt_bias=dt_bias, A=A, D=D)
    _check_dimensions("x", x, "(B, H, W, D)", 4)
    batch, height, width, channels = x.shape
    _check_dimensions("A", A, "(K, D, N)", 3)
    directions, _, states = A.shape
    if directions not in ORDERS_OF_DIRECTIONS:
        raise ShapeError(f"A has {directions} directions", "K = 1, 2 or 4")
    _check_dimensions("dt_weight", dt_weight, "(K, D, R)", 3)
    rank = dt_weight.shape[2]
    _check_shape("A", A, "(K, D, N)", (directions, channels, states))
    _check_shape("dt_weight", dt_weight, "(K, D, R)", (directions, channels, rank))
    _check_shape("dt_low", dt_low, "(B, H, W, K, R)", (batch, height, width, directions, rank))
    _check_shape("B", B, "(B, H, W, K, N)", (batch, height, width, directions, states))
    _check_shape("C", C, "(B, H, W, K, N)", (batch, height, width, directions, states))
    _check_shape("dt_bias", dt_bias, "(K, D)", (directions, channels))
    _check_shape("D", D, "(K, D)", (directions, channels))

    dtype, inputs = state_dtype_of(x), _input_dtype(x, dt_low, B, C)
    x_flat, low, b, c = (_converted(tensor, inputs).flatten(1, 2) for tensor in (x, dt_low, B, C))
    a, weight, bias, skip = (_converted(tensor, dtype) for tensor in (A, dt_weight, dt_bias, D))
    y, _, _ = scan(
        x_flat,
        low,
        b,
        c,
        a,
        weight,
        bias,
        skip,
        None,
        height,
        width,
        True,
        "" if backend is None else check_name(backend),
        _needs_gradient(x, dt_low, B, C, dt_weight, dt_bias, A, D),
    )
    return _converted(y.view(x.shape), x.dtype)


def _input_dtype(x: Tensor, *others: Tensor) -> torch.dtype:
    """The type of x if all have it, else that of the states."""
    return x.dtype if all(tensor.dtype == x.dtype for tensor in others) else state_dtype_of(x)


def _converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)  # where nothing is to be done, `to` takes 2 us


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _rows_of_pixels(rows: Tensor, x: Tensor, groups: int, states: int) -> Tensor:
    """B or C as (B, L, G, N); ones where it is constant in time and stands in the weight instead."""
    batch, length, _ = x.shape
    if rows.ndim == 2:
        return x.new_ones(1).expand(batch, length, groups, states)
    if rows.ndim == 3:
        rows = rows.unsqueeze(1)
    return rows.to(x.dtype).permute(0, 3, 1, 2).expand(batch, length, groups, states)


def _check_floating(**tensors: Tensor | None) -> None:
    device: torch.device | None = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise DtypeError(f"{name} is a {type(tensor).__name__}", "a torch.Tensor")
        if tensor.dtype not in DTYPES:
            raise DtypeError(f"{name} has dtype {tensor.dtype}", "float32, float64, bfloat16 or float16")
        if device is None:
            first, device = name, tensor.device
        elif tensor.device != device:
            raise DeviceError(
                f"{name} lies on {tensor.device}, {first} on {device}",
                "all tensors on one device",
                "Move them with .to().",
            )


def _check_dimensions(name: str, tensor: Tensor, form: str, dimensions: int) -> None:
    if tensor.ndim != dimensions:
        raise ShapeError(f"{name} has shape {tuple(tensor.shape)}", f"{dimensions} dimensions, {form}")
    if 0 in tensor.shape:
        raise ShapeError(f"{name} has shape {tuple(tensor.shape)}", f"at least one element in each dimension of {form}")


def _check_shape(name: str, tensor: Tensor, form: str, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ShapeError(f"{name} has shape {tuple(tensor.shape)}", f"{form} = {shape}")


def _check_rows(name: str, rows: Tensor, u: Tensor, states: int) -> int:
    """Checks B or C against u and returns its number of groups."""
    batch, channels, length = u.shape
    if rows.ndim == 2:
        _check_shape(name, rows, "(D, N)", (channels, states))
        return 1
    if rows.ndim == 3:
        _check_shape(name, rows, "(B, N, L)", (batch, states, length))
        return 1
    _check_dimensions(name, rows, "(B, G, N, L); (B, N, L) and (D, N) are accepted too", 4)
    groups = rows.shape[1]
    _check_shape(name, rows, "(B, G, N, L)", (batch, groups, states, length))
    if channels % groups:
        raise ShapeError(f"{name} has {groups} groups for {channels} channels", "a number of groups that divides D")
    return groups
