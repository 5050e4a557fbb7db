from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serpent_ir import tasks
from serpent_ir.errors import ImageWriteError, RestorationError
from serpent_ir.images import Picture, read_image, write_image
from serpent_ir.restoration import Degrader, check_fidelity
from serpent_ir.restoration.fidelity_files import check_file, plan_maps
from serpent_ir.restoration.fidelity_map import in_colours

CLEAN = Picture(torch.rand(3, 24, 30, generator=torch.Generator().manual_seed(0)))


def test_where_maps_go(tmp_path: Path) -> None:
    names = ("b/a.png", "b/a.jpg", "a.png", "c.tif")
    pairs = [(tmp_path / "in" / name, tmp_path / "out" / name) for name in names]
    maps = plan_maps(pairs)
    assert [maps[target].relative_to(tmp_path / "out").as_posix() for _, target in pairs] == [
        "b/a.png-fidelity.png",
        "b/a.jpg-fidelity.png",
        "a-fidelity.png",
        "c-fidelity.png",
    ]


def test_no_two_maps_have_one_name(tmp_path: Path) -> None:
    """Not where a result is named as another's map would be, nor where letters' cases do not count."""
    names = ("a.jpg", "a.png", "a.jpg.png", "B.jpg", "b.png", "c.png")
    maps = plan_maps([(tmp_path / "in" / name, tmp_path / name) for name in names])
    stems = [path.name.removesuffix("-fidelity.png") for path in maps.values()]
    assert stems == ["a.jpg", "a.png", "a.jpg.png", "B.jpg", "b.png", "c"]


def test_maps_replace_no_image(tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    with pytest.raises(ImageWriteError, match="would replace the input"):
        plan_maps([(source, source)])
    with pytest.raises(ImageWriteError, match=r"b-fidelity\.png would be a map"):
        plan_maps([(tmp_path / "b-fidelity.png", target)])
    write_image(CLEAN, source)
    (tmp_path / "linked.png").hardlink_to(source)
    with pytest.raises(ImageWriteError, match="would replace the input"):
        plan_maps([(source, tmp_path / "linked.png")])
    (tmp_path / "b-fidelity.png").hardlink_to(source)
    with pytest.raises(ImageWriteError, match=r"b-fidelity\.png would be a map"):
        plan_maps([(source, target)])
    with pytest.raises(ImageWriteError, match=r"b-fidelity\.png would be a map"):
        plan_maps([(source, target), (tmp_path / "c.png", tmp_path / "b-fidelity.png")])


@pytest.mark.parametrize("name", ["deblur", "sr2", "inpaint", "photo"])
def test_files_are_checked_as_they_are(tmp_path: Path, name: str) -> None:
    source, target, map_path = (tmp_path / f"{stem}.png" for stem in ("in", "out", "map"))
    degrader = Degrader(name)
    write_image(degrader.degrade_picture(CLEAN, "in.png"), source)
    write_image(CLEAN, target)
    found = check_file(degrader.operator, source, target, map_path)
    picture = read_image(source)
    image = picture.pixels
    if name == "inpaint":
        assert picture.alpha is not None
        image = torch.cat([image, 1 - picture.alpha])
    expected = check_fidelity(read_image(target).pixels, image, degrader.operator)
    assert found.lines == expected.lines and torch.equal(found.map.nan_to_num(-1), expected.map.nan_to_num(-1))
    drawn = read_image(map_path).pixels
    assert drawn.shape[1:] == picture.pixels.shape[1:]
    torch.testing.assert_close(drawn, in_colours(found.map), rtol=0, atol=0.51 / 255)


def test_files_that_do_not_go_together(tmp_path: Path) -> None:
    write_image(CLEAN, tmp_path / "a.png")
    with pytest.raises(RestorationError, match="has no transparency"):
        check_file(tasks.create("inpaint"), tmp_path / "a.png", tmp_path / "a.png", tmp_path / "map.png")
    assert not (tmp_path / "map.png").exists()


def test_what_does_not_fit_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(Picture(torch.rand(3, 20, 30)), tmp_path / "a.png")
    monkeypatch.setattr("serpent_ir.restoration.fidelity_files.affordable", lambda: 100_000)
    with pytest.raises(RestorationError, match="too large to be checked"):
        check_file(tasks.create("deblur"), tmp_path / "a.png", tmp_path / "a.png", tmp_path / "map.png")
    assert not (tmp_path / "map.png").exists()
