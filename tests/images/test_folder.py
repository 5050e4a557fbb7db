from __future__ import annotations

from pathlib import Path

import pytest

from serpent_ir.errors import DataError
from serpent_ir.images import IMAGE_SUFFIXES, find_images, list_folder


def test_find_images(tmp_path: Path) -> None:
    kept = ["B.JPG", "a.png", "c/d/e.tiff", "c/z.webp", "x.gif"]
    others = ["a.png.part", "c/photo.HEIC", "notes.txt", "png"]
    hidden = [".hidden.png", "._a.png", ".thumbnails/a.png", ".thumbnails/notes.txt", ".directory"]
    for name in kept + others + hidden:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "album").symlink_to(tmp_path / "c")
    (tmp_path / ".album").symlink_to(tmp_path / "c")
    assert find_images(str(tmp_path)) == sorted(tmp_path / name for name in kept)
    assert list_folder(tmp_path).images == find_images(tmp_path)
    assert list_folder(tmp_path).others == sorted(tmp_path / name for name in (*others, "album"))
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    assert find_images(tmp_path) == []
    with pytest.raises(DataError, match=r"cannot list the folder .*nowhere"):
        find_images(tmp_path / "nowhere")
    (tmp_path / "file.png").touch()
    with pytest.raises(DataError, match="Not a directory"):
        find_images(tmp_path / "file.png")
