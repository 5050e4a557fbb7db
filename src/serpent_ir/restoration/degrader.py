"""A task's degradation applied to pictures, reproducibly."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from serpent_ir import tasks
from serpent_ir.restoration.purpose import DEFAULT_TASK
from serpent_ir.tasks import Degradation

if TYPE_CHECKING:
    from serpent_ir.images import OutputOptions, Picture
    from serpent_ir.restoration.outcome import BatchSummary, FileOutcome
    from serpent_ir.restoration.plan import Plan


class Degrader:
    """A task's degradation, in which the randomness of a picture follows from `seed` and its name alone.

    task: a registered name, with `options`; the path of a task file (see `tasks.load_task`); or a degradation.
    Raises UnknownNameError or RangeError for a task, an option or a value that does not exist, DataError for a task
    file that cannot be read.
    """

    def __init__(self, task: str | Path | Degradation = DEFAULT_TASK, seed: int = 0, **options: Any) -> None:
        self.seed = seed
        self.operator = task if isinstance(task, Degradation) else tasks.load_task(task, **options)

    def damage(self, picture: Picture, name: str) -> Tensor:
        """What the degradation makes of a picture, (channels, h, w), not clipped; see `Degradation.damaged`.

        `name`, such as "folder/a.png", and the seed decide all that is random. A gray picture stays gray: it gets the
        noise of one channel.
        """
        generator = torch.Generator().manual_seed(seed_of(self.seed, name))
        damaged = self.operator.damaged(picture.pixels[None], generator)[0]
        return torch.cat([damaged[:1].expand(3, -1, -1), damaged[3:]]) if picture.gray else damaged

    def degrade_picture(self, picture: Picture, name: str) -> Picture:
        """The degraded picture, not clipped, as a file would hold it, see `damage`.

        For super-resolution it is smaller, its alpha too. Where parts are missing, they are transparent.
        """
        damaged, alpha = self.damage(picture, name), picture.alpha
        if alpha is not None and self.operator.enlarge > 1:
            alpha = tasks.Downscale(self.operator.enlarge)(alpha[None])[0].clamp(0, 1)
        if self.operator.channels == 4:
            known = 1 - damaged[3:]
            alpha = known if alpha is None else alpha * known
        return replace(picture, pixels=damaged[:3].contiguous(), alpha=alpha)

    def degrade_plan(
        self,
        plan: Plan,
        on_outcome: Callable[[FileOutcome], None] | None = None,
        options: OutputOptions | None = None,
        again: bool = False,
    ) -> BatchSummary:
        """Degrade many files; see `run_batch`. Files that an earlier call degraded in the same way are skipped, unless
        `again`.
        """
        from serpent_ir.restoration.batch import run_batch
        from serpent_ir.restoration.one import Each

        each = Each(self.degrade_picture)
        return run_batch(plan, each, options, settings=self.settings(), again=again, on_outcome=on_outcome)

    def settings(self) -> dict[str, Any]:
        """What decides a result, as JSON can hold it."""
        return {"task": self.operator.name, "options": self.operator.options, "seed": self.seed}


def seed_of(seed: int, name: str) -> int:
    """A seed in [0, 2^63) from a run's seed and a picture's name, the same on every machine."""
    digest = hashlib.sha256(os.fsencode(f"{seed}:{name}")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
