from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from photograph_files import Maker
from torch.utils.data import DataLoader

from serpent_ir.data import BatchKey, CropBatches, PhotographSource, crop_loader, open_photographs
from serpent_ir.data.load import estimated_bytes, list_all
from serpent_ir.data.loader import worker_context
from serpent_ir.errors import DataError
from serpent_ir.images import content_hash

KEYS = [BatchKey(step, 8 * (1 + step // 2), 2, first) for step in range(4) for first in (0, 2)]


@pytest.fixture
def source(make: Maker) -> PhotographSource:
    """Three photographs and a file that is none."""
    for number in range(3):
        make.image(f"folder/{number}.png", number, 24 + number, 30)
    (make.root / "folder" / "1-broken.png").write_bytes(b"no image")
    return PhotographSource(str(make.root / "folder"), (1.0, 1.5), size=20)


def test_where_photographs_lie_changes_nothing(source: PhotographSource, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        memory = open_photographs([source], "memory", None)
        assert "1 of 4 images skipped" in caplog.text and "1-broken.png" in caplog.text
        caplog.clear()
        none = open_photographs([source], "none", None)
        assert not caplog.text and len(none) == len(memory) == 4
        first, second = (CropBatches(photographs, 3) for photographs in (memory, none))
        assert all(torch.equal(first[key][1], second[key][1]) for key in KEYS)
    assert memory.in_memory and not none.in_memory
    assert caplog.text.count("1-broken.png") == 1
    assert [one.name for one in none.readable()] == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_number_of_workers_and_processes_changes_nothing(source: PhotographSource, cache: str) -> None:
    photographs = open_photographs([source], cache, None)  # type: ignore[arg-type]
    alone = list(crop_loader(photographs, 3, KEYS, 0))
    shared = list(crop_loader(photographs, 3, KEYS, 2))
    assert [batch[0] for batch in shared] == [key.step for key in KEYS]
    assert all(torch.equal(one[1], other[1]) for one, other in zip(alone, shared, strict=True))
    assert worker_context(photographs).get_start_method() == ("fork" if cache == "memory" else "forkserver")
    halves = [torch.cat([alone[index][1], alone[index + 1][1]]) for index in range(0, len(KEYS), 2)]
    wholes = [CropBatches(photographs, 3)[BatchKey(step, 8 * (1 + step // 2), 4)][1] for step in range(4)]
    assert all(torch.equal(half, whole) for half, whole in zip(halves, wholes, strict=True))


def test_memory_is_taken_as_far_as_it_goes(source: PhotographSource, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 3 * 20 * sum(round(30 * 20 / height) for height in (24, 25, 26))
    whole, kept = estimated_bytes(list_all([source]))
    assert (whole, kept) == (3 * 30 * (24 + 25 + 26) * 4 // 3, needed * 4 // 3)  # the broken one counts as the others
    assert open_photographs([source], "auto", kept).in_memory
    assert open_photographs([source], "auto", None).in_memory
    assert not open_photographs([source], "auto", kept - 1).in_memory
    assert open_photographs([source], "memory", 0).in_memory
    monkeypatch.setattr("serpent_ir.data.load.DECODED_AT_ONCE", whole - 1)
    assert not open_photographs([source], "auto", None).in_memory


def test_hashes_are_those_of_the_files_before_scaling(source: PhotographSource, make: Maker) -> None:
    expected = sorted(content_hash(make.image(f"folder/{number}.png", number, 24 + number, 30)) for number in range(3))
    assert open_photographs([source], "memory", None).hashes() == expected
    assert open_photographs([source], "none", None).hashes() is None


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    source = PhotographSource(str(tmp_path))
    with pytest.raises(DataError, match="no readable image"):
        open_photographs([source], "auto", None)
    batches = CropBatches(open_photographs([source], "none", None), 0)
    with pytest.raises(DataError, match="none of 100 photographs"):
        batches[BatchKey(0, 8, 1)]


def test_pairs_are_cut_alike(make: Maker) -> None:
    clean = make.image("pairs/clean/a.png", 1, 20, 30)
    make.image("pairs/clean/b.png", 2, 6, 7)
    for name, pixels in (("a", clean), ("b", None)):
        make.image(f"pairs/degraded/{name}.png", 1 if pixels is not None else 2, *((20, 30) if name == "a" else (6, 7)))
    paired = open_photographs([PhotographSource(str(make.root / "pairs"), layout="paired")], "none", None)
    assert paired.paired
    step, cleans, degraded = CropBatches(paired, 0)[BatchKey(5, 8, 12)]
    assert step == 5 and cleans.shape == (12, 3, 8, 8)
    assert torch.equal(cleans, degraded)
    loaded = next(iter(DataLoader(CropBatches(paired, 0), batch_size=None, sampler=[BatchKey(5, 8, 12)])))
    assert torch.equal(loaded[2], degraded)


def test_pairs_are_not_mixed_with_others(make: Maker) -> None:
    make.image("pairs/clean/a.png")
    make.image("pairs/degraded/a.png")
    make.image("plain/a.png")
    sources = [PhotographSource(str(make.root / "pairs"), layout="paired"), PhotographSource(str(make.root / "plain"))]
    with pytest.raises(DataError, match="mixed"):
        _ = open_photographs(sources, "auto", None).paired
