"""Sources of photographs as a command line says them."""

from __future__ import annotations

from pathlib import Path

import pytest

from serpent_ir.data import PhotographSource
from serpent_ir.errors import DataError


def test_a_range_of_shrinking_is_part_of_a_folder() -> None:
    folder = PhotographSource.from_text("a:b/c:1.35-2")
    assert (folder.path, folder.shrink) == ("a:b/c", (1.35, 2.0))
    assert PhotographSource.from_text("photographs-2") == PhotographSource("photographs-2")
    with pytest.raises(DataError, match="shrink"):
        PhotographSource.from_text("a:0.5-2")


def test_a_prepared_folder_stands_for_its_shards(tmp_path: Path) -> None:
    assert not PhotographSource.from_text(str(tmp_path)).is_shards
    (tmp_path / "shard-000000.tar").touch()
    prepared = PhotographSource.from_text(f"{tmp_path}:1-2")
    assert prepared.is_shards and prepared == PhotographSource(str(tmp_path), (1.0, 2.0), layout="shards")
