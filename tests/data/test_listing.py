from __future__ import annotations

import logging

import pytest
import torch
from photograph_files import Maker

from serpent_ir.data import PhotographSource, list_photographs, load_photographs
from serpent_ir.errors import DataError


def names(source: PhotographSource) -> list[str]:
    return [entry.name for entry in list_photographs(source).entries]


def test_ffhq_is_split_by_number(make: Maker, caplog: pytest.LogCaptureFixture) -> None:
    for number in (0, 1, 59_999, 60_000, 69_999):
        make.image(f"{number // 1000 * 1000:05d}/{number:05d}.png", number)
    make.image("00000/70000.png")
    make.image("00000/sample.png")
    (make.root / "LICENSE.txt").touch()
    path = str(make.root)
    with caplog.at_level(logging.WARNING):
        assert names(PhotographSource(path, layout="ffhq", split="train")) == [
            "00000/00000.png", "00000/00001.png", "59000/59999.png",
        ]  # fmt: skip
    assert "59997 of 60000 numbers are missing, the first is 00002" in caplog.text
    assert names(PhotographSource(path, layout="ffhq", split="val")) == ["60000/60000.png", "69000/69999.png"]
    assert len(names(PhotographSource(path, layout="ffhq"))) == 5


def test_ffhq_in_one_folder_of_which_a_part_is_missing(make: Maker) -> None:
    make.image("00007.png")
    assert names(PhotographSource(str(make.root), layout="ffhq", split="train")) == ["00007.png"]
    with pytest.raises(DataError, match=r"holds no image that can be used; expected FFHQ's 00000\.png"):
        list_photographs(PhotographSource(str(make.root), layout="ffhq", split="val"))
    make.image("thumbnails128x128/00007.png")
    with pytest.raises(DataError, match=r"holds 00007\.png twice, in \. and thumbnails128x128"):
        list_photographs(PhotographSource(str(make.root), layout="ffhq"))


def test_size_is_that_of_the_shorter_side_and_never_enlarges(make: Maker) -> None:
    make.image("00000.png", 0, 40, 40)
    make.image("00001.png", 1, 30, 61)
    small = make.image("00002.png", 2, 20, 25)
    photographs = load_photographs([PhotographSource(str(make.root), layout="ffhq", split="train", size=20)])
    assert [tuple(one.pixels.shape) for one in photographs] == [(3, 20, 20), (3, 20, 41), (3, 20, 25)]
    assert torch.equal(photographs[2].pixels, small)


def test_pairs_are_found_by_name(make: Maker) -> None:
    clean = [make.image("clean/a.png", 1), make.image("clean/deep/b.png", 2)]
    degraded = [make.image("degraded/a.png", 3), make.image("degraded/deep/b.webp", 4)]
    make.image("clean/alone.png")
    make.image("degraded/lost.png")
    source = PhotographSource(str(make.root), layout="paired")
    assert list_photographs(source).problems == [
        "clean/alone has no partner in degraded/",
        "degraded/lost has no partner in clean/",
    ]
    photographs = load_photographs([source])
    assert [photograph.name for photograph in photographs] == ["a", "deep/b"]
    for photograph, one, other in zip(photographs, clean, degraded, strict=True):
        assert photograph.degraded is not None
        assert torch.equal(photograph.pixels, one) and torch.equal(photograph.degraded, other)


def test_pairs_are_taken_for_photographs_only_when_asked(make: Maker) -> None:
    for name in ("clean/a.png", "degraded/a.png"):
        make.image(name)
    with pytest.raises(DataError, match=r"as pairs do.*Name .*/clean; .*layout: paired"):
        list_photographs(PhotographSource(str(make.root)))
    assert names(PhotographSource(str(make.root), layout="folder")) == ["clean/a.png", "degraded/a.png"]
    assert names(PhotographSource(str(make.root / "clean"))) == ["a.png"]


def test_pairs_that_do_not_fit_are_named(make: Maker, caplog: pytest.LogCaptureFixture) -> None:
    source = PhotographSource(str(make.root), layout="paired")
    make.image("clean/a.png", 1, 20, 30)
    with pytest.raises(DataError, match="degraded' does not exist"):
        list_photographs(source)
    make.image("degraded/b.png")
    with pytest.raises(DataError, match="clean/a has no partner"):
        list_photographs(source)
    make.image("degraded/a.png", 1, 10, 30)
    with pytest.raises(DataError, match="no readable image"):
        load_photographs([source])
    assert "pair a: clean is 30 x 20, degraded 30 x 10; expected equal sizes" in caplog.text


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"layout": "paired", "shrink": (1.0, 2.0)}, "keep their size"),
        ({"layout": "paired", "size": 64}, "keep their size"),
        ({"split": "train"}, "layout ffhq"),
        ({"size": 0}, "size is 0"),
    ],
)
def test_fields_that_do_not_agree_are_refused(fields: dict[str, object], named: str) -> None:
    with pytest.raises(DataError, match=named):
        PhotographSource("anywhere", **fields)  # type: ignore[arg-type]


def test_label_gives_nothing_away() -> None:
    assert PhotographSource("/home/me/photographs/").label == "photographs"
    assert PhotographSource("https://me:secret@host/a/train-{00..09}.tar?key=secret").label == "train-{00..09}.tar"
