"""Where the feature maps of an out-of-core pass are: in memory, or in files of a folder."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from serpent_ir.files import replacing
from serpent_ir.ops.band_scan import States

JOURNAL = "stages.json"


class FeatureMap(Protocol):
    """A map (H, W, C) of float32."""

    height: int
    width: int
    channels: int

    def read(self, first: int, end: int) -> Tensor:
        """(end - first, W, C), dense: the rows from `first` up to `end`; it may be the map's own memory."""
        ...

    def write(self, first: int, rows: Tensor) -> None:
        """Put `rows`, dense, in place from `first` on."""
        ...


class Store(Protocol):
    """The maps of a pass by name, one version of each, and how far the pass is."""

    done: int
    """Stages that are complete: what is stored is what the last of them left."""

    def get(self, name: str) -> FeatureMap: ...

    def create(self, name: str, height: int, width: int, channels: int) -> FeatureMap:
        """A map to be filled, which takes the name when the stage is complete."""
        ...

    def renewed(self, name: str) -> FeatureMap:
        """As `create`, of the same size, to be filled from first row to last with what becomes of the map's rows.

        It may be that map itself.
        """
        ...

    def states(self) -> States:
        """An empty list for this stage."""
        ...

    def complete(self, *dropped: str) -> None:
        """The stage is complete; maps named here are not needed any more."""
        ...


class MemoryMap:
    def __init__(self, height: int, width: int, channels: int) -> None:
        self.height, self.width, self.channels = height, width, channels
        self.rows = torch.empty(height, width, channels)

    def read(self, first: int, end: int) -> Tensor:
        return self.rows[first:end]

    def write(self, first: int, rows: Tensor) -> None:
        place = self.rows[first : first + len(rows)]
        if place.data_ptr() != rows.data_ptr():
            place.copy_(rows)


class MemoryStore:
    """Maps in memory. A pass cannot be resumed."""

    def __init__(self) -> None:
        self.done = 0
        self._maps: dict[str, MemoryMap] = {}

    def get(self, name: str) -> MemoryMap:
        return self._maps[name]

    def create(self, name: str, height: int, width: int, channels: int) -> MemoryMap:
        self._maps[name] = MemoryMap(height, width, channels)
        return self._maps[name]

    def renewed(self, name: str) -> MemoryMap:
        return self._maps[name]

    def states(self) -> States:
        return []

    def complete(self, *dropped: str) -> None:
        self.done += 1
        for name in dropped:
            del self._maps[name]


class FileMap:
    """Rows one after the other, as they lie in memory."""

    def __init__(self, path: Path, height: int, width: int, channels: int) -> None:
        self.height, self.width, self.channels = height, width, channels
        self.path = path

    def read(self, first: int, end: int) -> Tensor:
        rows = torch.empty(end - first, self.width, self.channels)
        read_into(rows, self.path, first * self.width * self.channels * 4)
        return rows

    def write(self, first: int, rows: Tensor) -> None:
        write_from(rows, self.path, first * self.width * self.channels * 4)

    def sync(self) -> None:
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())


OURS = re.compile(r"(scale[0-9]+|states)\.[0-9]+|\.serpent-.*\.part")


class FileStore:
    """Maps as files of a folder. A pass that was stopped is resumed where the last complete stage ended.

    A stage leaves the maps alone that were there before it: it writes new versions beside them.

    Raises OSError when the folder cannot be used or the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._maps: dict[str, FileMap] = {}
        self._new: dict[str, FileMap] = {}
        self.done = 0
        try:
            state = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
            maps = {str(name): FileMap(folder / str(file), *size) for name, (file, *size) in state["maps"].items()}
            self.done, self._maps = int(state["done"]), maps
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError, AttributeError):  # not ours, or damaged: from the beginning
            self.done, self._maps = 0, {}
        self._remove_others()

    def get(self, name: str) -> FileMap:
        return self._maps[name]

    def create(self, name: str, height: int, width: int, channels: int) -> FileMap:
        self._new[name] = FileMap(self._folder / f"{name}.{self.done + 1}", height, width, channels)
        return self._new[name]

    def renewed(self, name: str) -> FileMap:
        old = self._maps[name]
        return self.create(name, old.height, old.width, old.channels)

    def states(self) -> States:
        return FileList(self._folder / f"states.{self.done + 1}")

    def complete(self, *dropped: str) -> None:
        for map_ in self._new.values():
            map_.sync()  # a journal on the disk must not speak of maps that are not
        self.done += 1
        self._maps = {name: map_ for name, map_ in {**self._maps, **self._new}.items() if name not in dropped}
        self._new = {}
        state = {
            "done": self.done,
            "maps": {n: (m.path.name, m.height, m.width, m.channels) for n, m in self._maps.items()},
        }
        with replacing(self._folder / JOURNAL) as temporary:
            temporary.write_text(json.dumps(state), encoding="utf-8")
        self._remove_others()

    def _remove_others(self) -> None:
        needed = {map_.path.name for map_ in self._maps.values()}
        for path in self._folder.iterdir():
            if OURS.fullmatch(path.name) and path.name not in needed:
                path.unlink()


class FileList:
    """Tensors of one shape in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shape: torch.Size = torch.Size()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> Tensor:
        tensor = torch.empty(self._shape)
        read_into(tensor, self._path, index * tensor.nbytes)
        return tensor

    def __setitem__(self, index: int, value: Tensor, /) -> None:
        write_from(value, self._path, index * value.nbytes)

    def append(self, value: Tensor, /) -> None:
        self._shape, self._length = value.shape, self._length + 1
        self[self._length - 1] = value


def read_into(tensor: Tensor, path: Path, offset: int) -> None:
    """Fill a dense tensor with the bytes of a file from `offset` on. Raises OSError when the file ends before."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        rest = tensor.view(-1).numpy().data.cast("B")
        while rest:
            count = file.readinto(rest)
            if not count:
                raise OSError(errno.EIO, "the file is too short", str(path))
            rest = rest[count:]


def write_from(tensor: Tensor, path: Path, offset: int) -> None:
    """Put the bytes of a dense tensor into a file, which is made if need be, from `offset` on. Raises OSError."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb", buffering=0) as file:
        file.seek(offset)
        rest = tensor.view(-1).numpy().data.cast("B")
        while rest:
            rest = rest[file.write(rest) :]
