"""Photographs of random pixels on disk and in archives."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import torch

from serpent_ir.images import encode_pixels


def random_pixels(seed: int, height: int = 20, width: int = 30) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


class Maker:
    """Writes photographs below `root` and gives their pixels."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(self, name: str, seed: int = 0, height: int = 20, width: int = 30) -> torch.Tensor:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random_pixels(seed, height, width)
        path.write_bytes(encode_pixels(pixels, path.suffix))
        return pixels

    def tar(self, name: str, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
        """An archive of files; a TarInfo stands for a member without content, such as a link."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for member, content in members.items():
                if isinstance(content, tarfile.TarInfo):
                    archive.addfile(content)
                    continue
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path
