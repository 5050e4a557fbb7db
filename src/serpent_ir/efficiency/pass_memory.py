"""How much memory a pass without gradients will take, said before it is made."""

from __future__ import annotations

import copy
import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from serpent_ir.models.out_of_core import can_go_out_of_core

RESERVE = 1.45
"""What is asked for beyond the tensors that are counted: libraries below torch have buffers of their own. The most that
was measured is 1.40 (Restormer, docs/results.md)."""
RESERVE_IN_PLACE = 1.1


def pass_bytes(model: nn.Module, channels: int, height: int, width: int) -> int:
    """The bytes that a pass without gradients takes at its peak beside model and input (1, channels, height, width).

    Nothing is computed: tensors are followed on the meta device, in the type of the model's parameters; for a Serpent
    whose maps are overwritten in place (float32 on the CPU, native backend), what it holds is known.
    """
    if can_go_out_of_core(model):
        return int(RESERVE_IN_PLACE * in_place_bytes(model, height, width))
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    on_meta = copy.deepcopy(model).to("meta").eval()
    image = torch.empty(1, channels, height, width, device="meta", dtype=dtype)
    with torch.no_grad(), LiveBytes() as live:
        on_meta(image)
    return int(RESERVE * live.peak)


def in_place_bytes(model: Any, height: int, width: int) -> int:
    """What a Serpent holds at its peak when blocks take the place of their input: maps, and those of one block."""
    config = model.config
    multiple, patch = config.size_multiple, config.patch_size
    padded = tuple(-(-size // multiple) * multiple for size in (height, width))
    pixels = math.prod(padded) // patch**2
    door = config.in_channels * math.prod(padded) if padded != (height, width) else 0  # the padded image
    patches = 2 * config.out_channels * patch**2 * pixels  # as they come, or go: rearranged once
    peak, skips = door + patches + config.embed_channels * pixels, 0
    scales = len(config.depths_down)
    for scale in range(scales + 1):
        channels = config.embed_channels * 2**scale
        blocks = model.bottleneck if scale == scales else (*model.down[scale], *model.up[scale])
        for block in blocks:
            inner = block.out_proj.in_features
            rows = block.x_proj.out_features if hasattr(block, "x_proj") else 0
            peak = max(peak, door + skips + (channels + 2 * inner + rows) * pixels)
        skips += channels * pixels
        pixels //= 4
    return 4 * peak


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operators make within the block, and the most that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._holders: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {_key(tensor) for tensor in tree_iter((args, kwargs)) if isinstance(tensor, Tensor)} - set(
            self._holders
        )
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in known:
                self._hold(tensor)
        return result

    def _hold(self, tensor: Tensor) -> None:
        key, size = _key(tensor), tensor.untyped_storage().nbytes()
        if key not in self._holders:
            self._holders[key] = 0
            self.live += size
            self.peak = max(self.peak, self.live)
        self._holders[key] += 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.live -= size


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
