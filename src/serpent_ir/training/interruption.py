"""Ctrl-C and SIGTERM: finish the step, write a checkpoint, leave."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class Interruption(Callback):
    """Turns the first SIGINT or SIGTERM into a stop after the current step; a second one ends the process as usual."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        log.warning("%s: stopping after this step, with a checkpoint", signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.signal is not None:
            trainer.should_stop = True

    def teardown(self, *_: Any, **__: Any) -> None:
        while self.previous:
            signal.signal(*self.previous.popitem())

    on_exception = teardown
