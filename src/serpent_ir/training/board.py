"""The course of a run for TensorBoard: curves, and a panel of degraded | restored | clean at each validation.

The package's own writer works in a thread, where a full disk cannot be answered; here its records are written at once.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from serpent_ir.data import Photograph, generator_for
from serpent_ir.training.restoration_module import RestorationModule
from serpent_ir.training.validation import VALIDATION_STREAM, degraded_pair, unrestored

log = logging.getLogger(__name__)

CURVES = ("loss", "val_psnr", "lr", "crop", "skipped_steps")
PANEL = "degraded | restored | clean"
PANEL_ROWS = 3
PANEL_SIDE = 128


class Board:
    """Writes TensorBoard events to `folder`; without the package tensorboard it says so once and writes nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: Any = None

    def open(self, step: int) -> None:
        """Begin after `step`: events that an earlier session wrote for later steps no longer count."""
        if find_spec("tensorboard") is None:
            log.warning("no TensorBoard events: the package tensorboard is not installed (pip install tensorboard)")
            return
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}"  # sessions are read in the order of their names
        self.records = RecordWriter((self.folder / name).open("wb", buffering=0))
        self._write(0, file_version="brain.Event:2")
        if step:
            self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, row: dict[str, Any]) -> None:
        """The numbers of a line of metrics.csv, each as a curve over the steps."""
        if self.records is None:
            return
        from torch.utils.tensorboard.summary import scalar

        for name in CURVES:
            if row[name] not in ("", "nan"):
                self._write(row["step"], summary=scalar(name, float(row[name])))

    def add_panel(self, module: RestorationModule, photographs: Sequence[Photograph], step: int) -> None:
        """The middle of the first validation photographs, a row each: degraded, restored, clean."""
        if self.records is None:
            return
        from torch.utils.tensorboard.summary import image

        self._write(step, summary=image(PANEL, draw_panel(module, photographs[:PANEL_ROWS]), dataformats="CHW"))

    def _write(self, step: int, **content: Any) -> None:
        """Append an event. What cannot be written ends the events, not the training."""
        if self.records is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event

        try:
            self.records.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())
        except OSError as error:
            log.warning("no more TensorBoard events: %s", error)
            self.close()

    def close(self) -> None:
        if self.records is not None:
            self.records.close()
            self.records = None


@torch.no_grad()
def draw_panel(module: RestorationModule, photographs: Sequence[Photograph]) -> Tensor:
    """uint8 (3, rows * side, 3 * side): for each photograph its middle as degraded, restored and clean."""
    model = module.average.module.eval()
    rows = []
    for index, photograph in enumerate(photographs):
        generator = generator_for(module.device, module.recipe.seed, index, VALIDATION_STREAM)
        degraded, clean = degraded_pair(middle(photograph), module.task, generator)
        rows.append(torch.cat([unrestored(degraded), model(degraded).float(), clean], dim=3)[0])
    width = max(row.shape[2] for row in rows)
    rows = [torch.nn.functional.pad(row, (0, width - row.shape[2])) for row in rows]
    return torch.cat(rows, dim=1).clamp(0, 1).mul(255).round().byte().cpu()


def middle(photograph: Photograph) -> Photograph:
    """Its central square of at most `PANEL_SIDE` pixels a side."""
    height, width = photograph.pixels.shape[1:]
    side = min(PANEL_SIDE, height, width)
    top, left = (height - side) // 2, (width - side) // 2

    def cut(image: Tensor) -> Tensor:
        return image[:, top : top + side, left : left + side]

    degraded = None if photograph.degraded is None else cut(photograph.degraded)
    return dataclasses.replace(photograph, pixels=cut(photograph.pixels), degraded=degraded)
