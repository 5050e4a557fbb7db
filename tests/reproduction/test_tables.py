from __future__ import annotations

import pytest

from serpent_ir.errors import UnknownNameError
from serpent_ir.models import list_models
from serpent_ir.recipes import list_recipes
from serpent_ir.reproduction.tables import TABLES, Row, Table, choose_rows, find_table


def test_tables_are_consistent() -> None:
    for name, table in TABLES.items():
        names = [row.name for row in table.rows]
        assert len(set(names)) == len(names), name
        assert {row.recipe for row in table.rows} <= {*list_recipes()}
        assert {row.changes.get("model", "serpent-b") for row in table.rows} <= {*list_models()}
        assert all(row.published for row in table.rows if row.group == table.rows[0].group) == bool(table.source)


def test_tables_of_the_paper() -> None:
    groups = [row.group for name in ("table1", "table2") for row in TABLES[name].rows]
    assert [groups.count(group) for group in dict.fromkeys(groups)] == [7, 6, 5]
    figures = {row.name: row.published for name in ("table1", "table2") for row in TABLES[name].rows}
    assert figures["deblur-256-serpent-h"] == {"psnr": 28.77, "ssim": 0.8149, "lpips": 0.2911, "gmac": 22.2}
    assert figures["sr8-512-restormer"] == {"psnr": 29.20, "ssim": 0.7984, "lpips": 0.3809}


def test_equal_table_has_all_models_and_the_twin_of_both_tasks() -> None:
    rows = [row for row in TABLES["equal"].rows if row.changes["task"] == "sr8"]
    assert len(rows) == 9 and len(TABLES["equal"].rows) == 18
    assert len({row.changes["model"] for row in rows}) == 8
    on_a_cpu = choose_rows(TABLES["equal"], [], accelerator=False)
    assert [row.name for row in on_a_cpu] == [
        f"{task}-{model}" for task in ("deblur", "sr8") for model in ("serpent-b", "unet-32", "twin")
    ]


TWO = Table("Two", "folders", (Row("fast", "", "", "smoke"), Row("slow", "", "", "smoke", accelerator=True)))


@pytest.mark.parametrize(
    ("only", "accelerator", "chosen"),
    [
        ([], False, ["fast"]),
        ([], True, ["fast", "slow"]),
        (["slow"], False, ["slow"]),
        (["slow", "fast"], True, ["fast", "slow"]),
    ],
)
def test_rows_are_chosen(only: list[str], accelerator: bool, chosen: list[str]) -> None:
    assert [row.name for row in choose_rows(TWO, only, accelerator)] == chosen


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"'fats'.*one of fast, slow"):
        choose_rows(TWO, ["fats"], accelerator=False)
    with pytest.raises(UnknownNameError, match=r"'table3'.*table1, table2, denoise, equal, ablation"):
        find_table("table3")
