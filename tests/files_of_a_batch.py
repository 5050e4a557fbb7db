"""Folders of small images, and transforms that processes of their own can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyvips
import torch

from serpent_ir.errors import RestorationError, ShapeError
from serpent_ir.images import Picture, write_image


def save(path: Path, value: float = 0.2, height: int = 4, width: int = 5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        pyvips.Image.black(3, 2, bands=3).copy(interpretation="srgb").gifsave(str(path))
    else:
        write_image(Picture(torch.full((3, height, width), value)), path)


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, but for the journal, and what is in them."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".serpent-journal.jsonl")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def invert(pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
    return [replace(picture, pixels=1 - picture.pixels) for picture in pictures]


class Troubled:
    """`invert` that, for files of certain names, takes 50 ms, does not end, ends its process, fails, or is wrong."""

    def __call__(self, pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
        for name in names:
            if name.startswith("slow"):
                time.sleep(0.05)
            if name.startswith("wait"):
                time.sleep(600)
            if name.startswith("exit"):
                os._exit(7)
            if name.startswith("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            if name.startswith("fail"):
                raise RestorationError(f"{name} has too much fog")
            if name.startswith("shape"):
                raise ShapeError("a shape of no kind")
            if name.startswith("wrong"):
                raise ZeroDivisionError("a defect")
        return invert(pictures, names)


class Mortal(Troubled):
    """`Troubled` that also kills its process with the first file of a name that begins with "once"."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks

    def __call__(self, pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
        for name in names:
            if name.startswith("once") and not (self.marks / name).exists():
                (self.marks / name).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(pictures, names)


class Trouble:
    """In place of a `PortableRestorer`: what it builds does what `Mortal` does."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks

    def build(self, device: str) -> SimpleNamespace:
        return SimpleNamespace(planner=SimpleNamespace(share=1.0), transform=Mortal(self.marks))
