"""Training with less memory: a block's inner results are computed once more in the backward pass, not kept.

Source: "Training deep nets with sublinear memory cost" (arXiv 1604.06174), with a segment for each block.
"""

from __future__ import annotations

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint

from serpent_ir.models import restormer, serpent, swinir, unet

BLOCKS = (serpent.GatedConvBlock, unet.ConvBlock, swinir.SwinBlock, restormer.Block)
"""What is recomputed as one: the repeated block of each model."""


def recompute_blocks(model: nn.Module) -> None:
    """From now on each block of `model` keeps its input alone for the backward pass.

    Names of parameters stay; results and gradients are the same. A copy of the model made after this would go on using
    the blocks of the first one. No block may draw random numbers.
    """
    for block in model.modules():
        if isinstance(block, BLOCKS):
            again = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            block.forward = again  # type: ignore[method-assign]
