from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from serpent_ir.data import PhotographSource, Preparation, load_photographs, prepare_shards
from serpent_ir.errors import DataError, RecipeError
from serpent_ir.images import Picture, write_image
from serpent_ir.reproduction.plan import (
    Request,
    make_plan,
    make_plans,
    plan_file,
    read_plan,
    write_plan,
)
from serpent_ir.reproduction.tables import TABLES, Row, Table


def test_recipe_row_and_command_are_put_together(table: Table, request_: Request, tmp_path: Path) -> None:
    first, second = (make_plan(table, row, request_, tmp_path / "out") for row in table.rows)
    assert (first.recipe.lr, second.recipe.lr) == (6e-3, 5e-4)
    assert (first.recipe.model_options, second.recipe.model_options) == ({}, {"directions": 1})
    assert second.folder == tmp_path / "out" / "second"
    for plan in (first, second):
        assert plan.recipe.time_budget == "2s" and plan.recipe.threads == 1 and plan.recipe.steps >= 1_000_000
        assert [folder.path for folder in plan.recipe.data] == list(request_.data) == [plan.val[0].path]
        assert not plan.recipe.val, "time spent on validation would be missing from training"


def test_arguments_have_the_last_word(table: Table, request_: Request, tmp_path: Path) -> None:
    request = dataclasses.replace(request_, budget=None, arguments=["--lr=0.01", "--model_options.embed_channels", "8"])
    plan = make_plan(table, table.rows[1], request, tmp_path)
    assert plan.recipe.lr == 0.01 and plan.recipe.model_options == {"directions": 1, "embed_channels": 8}
    assert plan.recipe.time_budget == "8m"
    with pytest.raises(RecipeError, match="bugdet"):
        make_plan(table, table.rows[0], dataclasses.replace(request, arguments=["--bugdet", "8m"]), tmp_path)
    with pytest.raises(RecipeError, match=r"time_budget.*duration"):
        make_plan(table, table.rows[0], dataclasses.replace(request, budget="eight"), tmp_path)


def test_ffhq_takes_the_place_of_the_recipes_variable(tmp_path: Path) -> None:
    (tmp_path / "ffhq").mkdir()
    table = TABLES["table1"]
    for row, size in ((table.rows[0], 256), (table.rows[-1], 512)):
        plan = make_plan(table, row, Request(data=[str(tmp_path / "ffhq")], budget="8m"), tmp_path / "out")
        assert [(one.path, one.split, one.size) for one in plan.recipe.data] == [
            (str(tmp_path / "ffhq"), "train", size)
        ]
        assert [(one.path, one.split, one.size) for one in plan.val] == [(str(tmp_path / "ffhq"), "val", size)]
        assert plan.recipe.epochs is None and plan.recipe.val == plan.val
    with pytest.raises(DataError, match="--data names 0 folders of FFHQ"):
        make_plan(table, row, Request(data=[]), tmp_path)


@pytest.fixture
def ffhq(tmp_path: Path) -> Path:
    """A folder `ffhq` of one training and one validation image, and shards of them, `train-256` and so on."""
    (tmp_path / "ffhq").mkdir()
    for number in (7, 60001):
        write_image(Picture(torch.zeros(3, 520, 520)), tmp_path / "ffhq" / f"{number:05d}.png")
    for split in ("train", "val"):
        for size in (256, 512):
            source = PhotographSource(str(tmp_path / "ffhq"), layout="ffhq", split=split)
            prepare_shards(source, tmp_path / f"{split}-{size}", Preparation(size=size))
    return tmp_path


def test_ffhq_is_taken_from_shards_of_the_rows_size(ffhq: Path) -> None:
    table = TABLES["table1"]
    small, large = table.rows[0], table.rows[-1]
    folder, shards = ffhq / "ffhq", {name: ffhq / name for name in ("train-256", "train-512", "val-256", "val-512")}

    def taken(row: Row, data: list[Path], val: list[Path]) -> tuple[PhotographSource, PhotographSource]:
        plan = make_plan(table, row, Request([str(one) for one in data], [str(one) for one in val]), ffhq / "out")
        assert plan.recipe.val == plan.val and len(plan.recipe.data) == len(plan.val) == 1
        return plan.recipe.data[0], plan.val[0]

    all_shards = [shards["train-512"], shards["train-256"]], [shards["val-256"], shards["val-512"]]
    for row, size in ((small, 256), (large, 512)):
        assert taken(row, *all_shards) == tuple(
            PhotographSource(str(shards[f"{split}-{size}"]), layout="shards", size=size) for split in ("train", "val")
        )
    train, val = taken(small, [shards["train-512"]], [folder])
    assert (train.size, val.path, val.split, val.size) == (256, str(folder), "val", 256)
    train, val = taken(small, [shards["train-256"] / "shard-000000.tar", folder], [])
    assert (train.path, val.path) == (str(shards["train-256"] / "shard-000000.tar"), str(folder))
    assert [len(load_photographs([source])) for source in (train, val)] == [1, 1]
    with pytest.raises(DataError, match=r"--data names 0 folders.*no shards of 512 x 512 pixels.*--only"):
        taken(large, [shards["train-256"]], [folder])
    with pytest.raises(DataError, match=r"--val names 0 folders.*split 'val'"):
        taken(small, [shards["train-256"]], [])
    only_small = Request([str(shards["train-256"])], [str(folder)])
    assert len(make_plans(table, table.rows[:2], only_small, ffhq / "out")) == 2, "other rows may lack photographs"


def test_recipes_come_with_the_package(
    table: Table, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("equal-budget").write_text("not a recipe")
    assert make_plan(table, table.rows[0], request_, tmp_path / "out").recipe.lr == 6e-3


def test_missing_folders_are_named(table: Table, request_: Request, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no --val"):
        make_plan(table, table.rows[0], dataclasses.replace(request_, val=()), tmp_path)
    with pytest.raises(DataError, match="nowhere"):
        make_plan(table, table.rows[0], dataclasses.replace(request_, val=["nowhere"]), tmp_path)


def test_a_plan_is_kept(table: Table, request_: Request, tmp_path: Path) -> None:
    plan = make_plan(table, table.rows[0], request_, tmp_path)
    assert read_plan(plan.folder) is None
    write_plan(plan)
    assert read_plan(plan.folder) == plan
    plan_file(plan.folder).write_text("{}")
    with pytest.raises(DataError, match=r"row\.json cannot be read"):
        read_plan(plan.folder)


def test_rows_of_a_table_are_made_alike(table: Table, request_: Request, tmp_path: Path) -> None:
    second = make_plans(table, table.rows[1:], request_, tmp_path)
    write_plan(second[0])
    assert make_plans(table, table.rows[1:], request_, tmp_path) == second
    changes: list[tuple[dict[str, Any], str]] = [
        ({"budget": "3s"}, "time_budget '2s' there, '3s' here"),
        ({"limit": 1}, "limit None there, 1 here"),
        ({"arguments": ["--threads=2"]}, "threads 1 there, 2 here"),
        ({"val": ["."]}, r"val \[.*photographs.* there"),
    ]
    for change, named in changes:
        other = dataclasses.replace(request_, **change)
        with pytest.raises(RecipeError, match=rf"second was begun with other settings \({named}.*another --out"):
            make_plans(table, table.rows[:1], other, tmp_path)


def test_rows_of_another_group_may_have_other_photographs(ffhq: Path) -> None:
    table = TABLES["table1"]
    only_small = Request([str(ffhq / "train-256")], [str(ffhq / "val-256")])
    write_plan(make_plans(table, table.rows[:1], only_small, ffhq / "out")[0])
    only_large = Request([str(ffhq / "train-512")], [str(ffhq / "val-512")])
    assert len(make_plans(table, table.rows[-1:], only_large, ffhq / "out")) == 1
    assert len(make_plans(table, table.rows[:1], only_small, ffhq / "out")) == 1, "nor the other way round"
    with pytest.raises(RecipeError, match="begun with other settings"):
        make_plans(table, table.rows[1:2], only_large, ffhq / "out")


def test_a_folder_may_be_written_in_any_way(
    table: Table, request_: Request, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plan(make_plans(table, table.rows, request_, tmp_path / "out")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", str(tmp_path))
    for text in ("photographs", f"{photographs}/", "./photographs/", "$HERE/photographs"):
        same = dataclasses.replace(request_, data=[text], val=[text])
        assert len(make_plans(table, table.rows, same, tmp_path / "out")) == 2


def test_pairs_are_not_taken_for_photographs(table: Table, request_: Request, tmp_path: Path) -> None:
    for name in ("clean", "degraded"):
        (tmp_path / "pairs" / name).mkdir(parents=True)
    for change in ({"data": [str(tmp_path / "pairs")]}, {"val": [str(tmp_path / "pairs")]}):
        with pytest.raises(DataError, match=r"as pairs do.*Name .*pairs/clean;"):
            make_plan(table, table.rows[0], dataclasses.replace(request_, **change), tmp_path / "out")  # type: ignore[arg-type]


def test_fields_without_effect_are_refused(table: Table, request_: Request, tmp_path: Path) -> None:
    for field in (["--steps", "3"], ["--epochs=2"], ["--time_budget", "1m"]):
        with pytest.raises(RecipeError, match=rf"{field[0].partition('=')[0]} beside --budget"):
            make_plan(table, table.rows[0], dataclasses.replace(request_, arguments=field), tmp_path)
    with pytest.raises(RecipeError, match=r"--run beside a table.*--out"):
        make_plan(table, table.rows[0], dataclasses.replace(request_, arguments=["--run", "mine"]), tmp_path)


def test_speed_may_change_where_it_does_not_count(table: Table, request_: Request, tmp_path: Path) -> None:
    in_steps = dataclasses.replace(request_, budget=None, arguments=["--time_budget=null", "--threads=1"])
    write_plan(make_plans(table, table.rows, in_steps, tmp_path)[0])
    faster = dataclasses.replace(in_steps, arguments=["--time_budget=null", "--threads=2"])
    assert make_plans(table, table.rows, faster, tmp_path)[0].recipe.threads == 2


def test_the_command_does_not_tell_where_folders_lie() -> None:
    request = Request(
        ["/home/me/one", "/x/two:1.35-2"], ["/home/me/val set"], "8m", arguments=["--workers", "2"], only=["sr8-twin"]
    )
    assert request.command("equal") == (
        "serpent reproduce equal --data one --data two:1.35-2 --val 'val set' --budget 8m --only sr8-twin --workers 2"
    )
    for arguments in (["--init_from", "/home/me/w.safetensors"], ["--init_from=/home/me/w.safetensors"]):
        assert "me" not in Request(["one"], arguments=arguments).command("equal")
