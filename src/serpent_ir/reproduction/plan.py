"""A row as it is made here: its recipe with the command's folders and budget, and what it is scored on."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from serpent_ir.data import PhotographSource, list_photographs
from serpent_ir.data.shards import locations_of
from serpent_ir.data.source import by_places
from serpent_ir.errors import DataError, RecipeError
from serpent_ir.images import image_size
from serpent_ir.recipes import bundled_recipe
from serpent_ir.reproduction.tables import Row, Table
from serpent_ir.text_file import write_json
from serpent_ir.training import Recipe, load_recipe
from serpent_ir.training.recipe import recipe_from_dict
from serpent_ir.training.run_folder import MAY_CHANGE

Content = TypeVar("Content")

STEPS_WITHOUT_END = 1_000_000
"""The steps of a row that a time budget ends."""

WITHOUT_EFFECT = {"run", "resume", "max_time", "log_every"}
"""Fields of a recipe that may differ between the sessions of a row with a time budget."""


@dataclass(frozen=True)
class Request:
    """What the command says of all rows.

    data: folders or shards to train on, each perhaps with a range of shrinking, as in photographs:1.35-2. val: those to
    score on. For FFHQ's tables, data and val are FFHQ's folder or shards of its images, see `ffhq_source`; without val,
    the validation images of the folder. limit: score at most so many. budget: training time of each row in place of its
    steps, such as "8m". seed: of the degradations that are scored. arguments: fields of all recipes, as on the command
    line of `serpent train`. only: the rows that are asked for by name.
    """

    data: Sequence[str]
    val: Sequence[str] = ()
    budget: str | None = None
    limit: int | None = None
    seed: int = 0
    arguments: Sequence[str] = ()
    only: Sequence[str] = ()

    def command(self, table: str) -> str:
        """The command that says the same, with folders by their own names."""
        words = ["serpent", "reproduce", table]
        for option, folders in (("--data", self.data), ("--val", self.val)):
            words += [word for text in folders for word in (option, PhotographSource(text).label)]
        for option, value in (("--budget", self.budget), ("--limit", self.limit), ("--seed", self.seed or None)):
            words += [] if value is None else [option, str(value)]
        words += [word for name in self.only for word in ("--only", name)]
        for before, argument in zip(["", *self.arguments], self.arguments, strict=False):
            option, equals, value = argument.partition("=")
            if before == "--init_from":
                argument = Path(argument).name
            elif option == "--init_from" and equals:
                argument = f"{option}={Path(value).name}"
            words.append(argument)
        return shlex.join(words)


@dataclass(frozen=True)
class Plan:
    """recipe: what is trained, into the folder `recipe.run`. val, limit, seed: what it is scored on."""

    recipe: Recipe
    val: list[PhotographSource]
    limit: int | None
    seed: int

    @property
    def folder(self) -> Path:
        return Path(self.recipe.run)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers."""
        recipe = dataclasses.replace(self.recipe, val=self.val).as_dict()
        return {"recipe": self.recipe.as_dict(), "val": recipe["val"], "limit": self.limit, "seed": self.seed}


def make_plans(table: Table, rows: Sequence[Row], request: Request, out: Path) -> list[Plan]:
    """How `rows` of the table are made, see `make_plan`.

    Raises RecipeError, too, when any row of their groups was begun in `out` with other settings: rows that stand beside
    each other must be comparable.
    """
    groups = {row.group for row in rows}
    begun = [row for row in table.rows if row in rows or (row.group in groups and plan_file(out / row.name).exists())]
    plans = {row.name: make_plan(table, row, request, out) for row in begun}
    for plan in plans.values():
        refuse_changes(plan)
    return [plans[row.name] for row in rows]


def make_plan(table: Table, row: Row, request: Request, out: Path) -> Plan:
    """How `row` is made from what `request` says, in a folder of its name below `out`.

    Raises RecipeError for a field or value that a recipe does not have or that is not for the command to say, DataError
    for folders that do not fit the table or are not there.
    """
    refuse_fields(request)
    changes = [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in row.changes.items()
    ]
    recipe = load_recipe(bundled_recipe(row.recipe), [*changes, *request.arguments])
    if request.budget is not None:
        recipe = dataclasses.replace(recipe, time_budget=request.budget, steps=STEPS_WITHOUT_END, epochs=None)
    data, val = sources_of(table, request, recipe)
    for source in [*data, *val]:
        if not source.is_shards:
            source.folder()
    own_val = val if recipe.val else []
    recipe = dataclasses.replace(recipe, run=str(out / row.name), data=data, val=own_val)
    return Plan(recipe, val, request.limit, request.seed)


def refuse_fields(request: Request) -> None:
    """Raise RecipeError for fields of a recipe that would have no effect."""
    given = {argument.partition("=")[0] for argument in request.arguments}
    if "--run" in given:
        remedy = "Name the folder of the whole table with --out."
        raise RecipeError("--run beside a table, whose rows have folders of their own", remedy=remedy)
    lengths = sorted(given & {"--steps", "--epochs", "--time_budget"})
    if lengths and request.budget is not None:
        came = f"{' and '.join(lengths)} beside --budget, which is the length of every row"
        raise RecipeError(came, "one length", "Leave --budget or the others out.")


def sources_of(table: Table, request: Request, recipe: Recipe) -> tuple[list[PhotographSource], list[PhotographSource]]:
    """The photographs to train on, and those to score on."""
    given = [PhotographSource.from_text(text) for text in request.data]
    val = [PhotographSource.from_text(text) for text in request.val]
    if table.data == "ffhq":
        data = [ffhq_source(given, own, "--data") for own in recipe.data]
        val = val or [source for source in given if not source.is_shards]  # shards hold the training images alone
        return data, [ffhq_source(val, own, "--val") for own in recipe.val]
    if not given or not val:
        missing = "--val" if given else "--data"
        raise DataError(f"no {missing}", "folders of photographs to train on (--data DIR) and to score on (--val DIR)")
    return given, val


def ffhq_source(given: Sequence[PhotographSource], own: PhotographSource, option: str) -> PhotographSource:
    """Where a row finds its part of FFHQ; own: that of its recipe, with the size the row has; option: of the command.

    Shards hold that part alone, prepared by `serpent data prepare`. Of several, those of the smallest photographs that
    are large enough are taken, and scaled down to the row's size where they are larger. Where no shards are, it is in
    FFHQ's folder as published, with the layout, split and size of the recipe.

    Raises DataError when there is neither, or more than one folder.
    """
    large_enough = {}
    for source in given:
        if source.is_shards and (side := side_of(source)) >= (own.size or 1):
            large_enough[side] = source
    if large_enough:
        return dataclasses.replace(large_enough[min(large_enough)], size=own.size)
    folders = [source for source in given if not source.is_shards]
    if len(folders) != 1:
        raise DataError(
            f"{option} names {len(folders)} folders of FFHQ, and no shards of {own.size} x {own.size} pixels or more",
            f"one folder, which holds 00000.png to 69999.png, or shards of its split {own.split!r} that"
            f" `serpent data prepare` made with --size {own.size}",
            "Rows of another size can be made alone, with --only.",
        )
    return dataclasses.replace(own, path=folders[0].path, shrink=folders[0].shrink)


def side_of(shards: PhotographSource) -> int:
    """The shorter side, in pixels, of the first photograph of the first shard."""
    first = PhotographSource(locations_of(shards.expanded())[0], layout="shards")
    entry = list_photographs(first).entries[0]
    return min(entry.size or image_size(entry.clean.read(), entry.name))


def plan_file(folder: Path) -> Path:
    return folder / "row.json"


def write_plan(plan: Plan) -> None:
    """Keep the plan in its folder, for the process that makes the row and for the next time."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    write_json(plan.as_dict(), plan_file(plan.folder))


def read_plan(folder: Path) -> Plan | None:
    """The plan that was written to `folder`; None when there is none. Raises DataError when it cannot be read."""

    def plan_of(content: Any) -> Plan:
        recipe = recipe_from_dict(content["recipe"])
        val = recipe_from_dict({**content["recipe"], "val": content["val"]}).val
        return Plan(dataclasses.replace(recipe, run=str(folder)), val, content["limit"], content["seed"])

    return read_own_file(plan_file(folder), plan_of, "Remove its folder, or give another --out.")


def read_own_file(path: Path, made_from: Callable[[Any], Content], remedy: str) -> Content | None:
    """What `made_from` makes of a JSON file in a row's folder; None without the file.

    Raises DataError, with that remedy, when it cannot be read or made.
    """
    if not path.exists():
        return None
    try:
        return made_from(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        came = f"{path} cannot be read ({type(error).__name__}: {error})"
        raise DataError(came, "what `serpent reproduce` wrote", remedy) from error


def refuse_changes(plan: Plan) -> None:
    """Raise RecipeError when the plan's folder was begun with another plan, naming what differs.

    What only changes the speed, such as the device, may differ, unless a time budget makes speed count.
    """
    before = read_plan(plan.folder)
    if before is None:
        return
    then, now = before.as_dict(), plan.as_dict()
    for facts in (then, now, then["recipe"], now["recipe"]):
        facts.update({name: by_places(facts[name]) for name in ("data", "val") if name in facts})
    free = WITHOUT_EFFECT if plan.recipe.time_budget is not None else MAY_CHANGE
    fields = {name for name in now["recipe"] if name not in free and then["recipe"][name] != now["recipe"][name]}
    fields |= {name for name in ("val", "limit", "seed") if then[name] != now[name]}
    if fields:
        examples = ", ".join(f"{name} {pick(then, name)!r} there, {pick(now, name)!r} here" for name in sorted(fields))
        raise RecipeError(
            f"{plan.folder} was begun with other settings ({examples})",
            remedy="Give the same settings as then, or another --out.",
        )


def pick(plan: dict[str, Any], name: str) -> Any:
    """What is compared under that name: the photographs that are scored go before those a recipe validates on."""
    return plan[name] if name in plan else plan["recipe"][name]
