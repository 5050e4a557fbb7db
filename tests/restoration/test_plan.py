"""What is written where, and what may never be overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from files_of_a_batch import save

from serpent_ir.errors import DataError, ImageReadError, ImageWriteError
from serpent_ir.restoration.plan import Naming, Plan, plan_file, plan_folder, plan_list


def names(plan: Plan) -> dict[str, str]:
    return {job.name: job.target.relative_to(plan.target).as_posix() for job in plan.jobs}


def test_formats_that_cannot_be_written_become_png_without_collisions(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("a.gif", "b.gif", "b.png", "b.jpg", "c.gif", "c.png", "c.gif.png"):
        save(source / name)
    assert names(plan_folder(source, tmp_path / "out")) == {
        "a.gif": "a.png",
        "b.gif": "b.gif.png",
        "b.png": "b.png",
        "b.jpg": "b.jpg",
        "c.gif": "c.gif.png.png",
        "c.png": "c.png",
        "c.gif.png": "c.gif.png",
    }


def test_a_format_for_all(tmp_path: Path) -> None:
    for name in ("A.JPEG", "a.png", "b/c.tif", "a.jpg.png"):
        save(tmp_path / "in" / name)
    assert names(plan_folder(tmp_path / "in", tmp_path / "out", Naming(".jpg"))) == {
        "A.JPEG": "A.JPEG",
        "a.png": "a.jpg",
        "a.jpg.png": "a.jpg.jpg",
        "b/c.tif": "b/c.jpg",
    }
    assert names(plan_folder(tmp_path / "in", tmp_path / "out", Naming(".png"))) == {
        "A.JPEG": "A.JPEG.png",  # A.png is a.png where letters' cases do not count
        "a.png": "a.png",
        "a.jpg.png": "a.jpg.png",
        "b/c.tif": "b/c.png",
    }


@pytest.mark.parametrize("inside", [".", "deep", "new/one", "../in", "../link"])
def test_output_folder_in_the_input_folder(tmp_path: Path, inside: str) -> None:
    save(tmp_path / "in" / "deep" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(ImageWriteError, match="lies in the input folder"):
        plan_folder(tmp_path / "in", tmp_path / "in" / inside)


def test_output_that_would_hit_an_input(tmp_path: Path) -> None:
    """Into the parent folder: in/in/a.png would be written over in/a.png. Through a link, or of a list, likewise."""
    for place in ("in", "in/in", "more"):
        save(tmp_path / place / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").symlink_to(tmp_path / "in" / "a.png")
    for plan in (
        lambda: plan_folder(tmp_path / "in", tmp_path),
        lambda: plan_folder(tmp_path / "in", tmp_path / "out"),
        lambda: plan_list([tmp_path / "in" / "a.png"], tmp_path / "in"),
        lambda: plan_list([tmp_path / "in" / "a.png", tmp_path / "more" / "a.png"], tmp_path),
    ):
        with pytest.raises(ImageWriteError, match="would be both input and output"):
            plan()


def test_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.heic").touch()
    with pytest.raises(DataError, match="holds no image among 1 files"):
        plan_folder(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match="names no file"):
        plan_list([], tmp_path / "out")
    save(tmp_path / "in" / "a.png")
    (tmp_path / "out.png").touch()
    with pytest.raises(ImageWriteError, match="is a file"):
        plan_folder(tmp_path / "in", tmp_path / "out.png")


def test_a_list_is_mirrored_below_the_current_folder_or_what_its_files_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    monkeypatch.chdir(tmp_path)
    listed = ["x/b.gif", "x/y/a.png", "link/y/a.png", "./x/y/../b.png", "x/missing.jpg", "x/noise.heic", "x/.."]
    plan = plan_list([Path(path) for path in listed[:-1]], tmp_path / "out")
    results = {
        "b.gif": "b.gif.png",
        "y/a.png": "y/a.png",
        "b.png": "b.png",
        "missing.jpg": "missing.jpg",
        "noise.heic": "noise.png",
    }
    assert plan.source == tmp_path
    assert names(plan) == {f"x/{name}": f"x/{result}" for name, result in results.items()}
    assert names(plan_list([Path("x/y/a.png")], tmp_path / "out")) == {
        "x/y/a.png": "x/y/a.png"
    }  # whatever else there is
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    elsewhere = plan_list([tmp_path / path for path in listed[:-1]], tmp_path / "out")
    assert elsewhere.source == tmp_path / "x" and names(elsewhere) == results
    monkeypatch.chdir(tmp_path)
    everywhere = plan_list([Path(path) for path in listed], tmp_path / "out")
    assert all(".." not in name for name in names(everywhere).values())
    with pytest.raises(DataError, match="the list names /"):
        plan_list([Path("/")], tmp_path / "out")


def test_plan_file(tmp_path: Path) -> None:
    source = tmp_path / "photo.jpg"
    save(source)
    save(tmp_path / "photo.gif")
    (tmp_path / "out").mkdir()
    assert plan_file(source, None, "restored") == tmp_path / "photo-restored.jpg"
    assert plan_file(tmp_path / "photo.gif", None, "restored") == tmp_path / "photo-restored.png"
    assert plan_file(source, tmp_path / "out", "restored") == tmp_path / "out" / "photo.jpg"
    assert plan_file(tmp_path / "photo.gif", tmp_path / "out", "restored") == tmp_path / "out" / "photo.png"
    assert plan_file(source, tmp_path / "other.tif", "restored") == tmp_path / "other.tif"
    with pytest.raises(ImageWriteError, match="a suffix among"):
        plan_file(source, tmp_path / "other.bmp", "restored")
    (tmp_path / "link.jpg").symlink_to(source)
    for target in (source, tmp_path, tmp_path / "out" / ".." / "photo.jpg", tmp_path / "link.jpg"):
        with pytest.raises(ImageWriteError, match="is the input itself"):
            plan_file(source, target, "restored")
    assert plan_file(source, source, "restored", overwrite=True) == source
    with pytest.raises(ImageReadError, match="does not exist"):
        plan_file(tmp_path / "missing.png", None, "restored")


def test_plan_file_with_a_format(tmp_path: Path) -> None:
    save(tmp_path / "photo.jpg")
    tiff = Naming(".tiff")
    assert plan_file(tmp_path / "photo.jpg", None, "restored", naming=tiff) == tmp_path / "photo-restored.tiff"
    assert plan_file(tmp_path / "photo.jpg", tmp_path, "restored", naming=tiff) == tmp_path / "photo.tiff"
    assert plan_file(tmp_path / "photo.jpg", tmp_path / "a.TIF", "restored", naming=tiff) == tmp_path / "a.TIF"
    with pytest.raises(ImageWriteError, match=r"a\.png does not end as a file of the format tiff does"):
        plan_file(tmp_path / "photo.jpg", tmp_path / "a.png", "restored", naming=tiff)


def test_many_files_are_planned_soon(tmp_path: Path) -> None:
    """No look at the whole file system for each: 2000 files that do not exist, in a second at most."""
    plan = plan_list([tmp_path / str(number % 7) / f"{number}.gif" for number in range(2000)], tmp_path / "out")
    assert len({job.target for job in plan.jobs}) == 2000 and os.listdir(tmp_path) == []
