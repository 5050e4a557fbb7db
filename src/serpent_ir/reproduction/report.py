"""A table as it stands: for the terminal, as Markdown, and as JSON. Ours stand beside what was published."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table as TerminalTable
from rich.text import Text

from serpent_ir.data import PhotographSource
from serpent_ir.data.source import by_places
from serpent_ir.evaluation.statistics import Difference, paired_difference
from serpent_ir.evaluation.table import line_of, md
from serpent_ir.files import printable
from serpent_ir.reproduction.plan import Plan
from serpent_ir.reproduction.results import RowResult
from serpent_ir.reproduction.tables import Table
from serpent_ir.text_file import write_json, write_text
from serpent_ir.training.forecast import duration_text

FORMAT, VERSION = "serpent-ir reproduction", 1
LABELS = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
DIGITS = {"psnr": 2, "ssim": 4, "lpips": 4}


@dataclass(frozen=True)
class Section:
    """The rows of one group as text: a heading, the columns' names, a line of cells for each row, and notes below."""

    heading: str
    columns: list[str]
    lines: list[list[str]]
    notes: list[str]


def sections(table: Table, rows: Sequence[RowResult]) -> list[Section]:
    """The groups of the table that have rows, in its order."""
    groups = dict.fromkeys(found.row.group for found in rows)
    return [section(table, group, [found for found in rows if found.row.group == group]) for group in groups]


def section(table: Table, group: str, rows: Sequence[RowResult]) -> Section:
    """The degraded input, then a line for each row; what is not known stays empty."""
    done = [found for found in rows if found.is_done]
    columns = columns_of(table, rows, done)
    lines = [[cell(found) for _, cell in columns] for found in rows]
    if done:
        before = {"model": "degraded input", **{LABELS[name]: score_text(done[0], "input", name) for name in LABELS}}
        lines.insert(0, [before.get(name.partition(" (")[0], "") for name, _ in columns])
    return Section(group, [name for name, _ in columns], lines, notes(rows, done))


Cell = Callable[[RowResult], str]


def columns_of(table: Table, rows: Sequence[RowResult], done: Sequence[RowResult]) -> list[tuple[str, Cell]]:
    """Name and content of each column."""

    def scores(name: str) -> Cell:
        return lambda found: beside(score_text(found, "output", name), published_text(found, name, DIGITS[name]))

    def measured(text: Callable[[dict[str, Any]], str]) -> Cell:
        return lambda found: text(found.result) if found.is_done and found.result is not None else ""

    def gmac(found: RowResult) -> str:
        return beside(measured(lambda result: f"{result['gmac']:.2f}")(found), published_text(found, "gmac", 1))

    published = {name for found in rows for name in found.row.published}
    known = {name for found in done for name in LABELS if has_score(found, "output", name)}

    def named(label: str, name: str) -> str:
        return f"{label} ({table.source})" if name in published else label

    columns: list[tuple[str, Cell]] = [("model", lambda found: found.row.label)]
    columns += [(named(label, name), scores(name)) for name, label in LABELS.items() if name in published | known]
    if not table.source and len(done) > 1:
        columns.append(
            (f"gain over {done[0].row.label.partition(':')[0]}", lambda found: difference_text(found, done[0]))
        )
    columns += [
        ("parameters, M", measured(lambda result: f"{result['parameters'] / 1e6:.3f}")),
        (named("GMAC", "gmac"), gmac),
        ("steps", measured(lambda result: str(result["steps"]))),
        ("training time", measured(lambda result: duration_text(result["seconds"]))),
    ]
    if any(found.result is not None and found.result.get("others") is not None for found in done):
        columns.append(("other work", measured(lambda result: share_text(result["others"]))))
    if len(done) < len(rows):
        columns.append(("", lambda found: "" if found.is_done else found.status))
    return columns


def has_score(found: RowResult, side: str, name: str) -> bool:
    return found.result is not None and found.result["images"][0][side].get(name) is not None


def score_text(found: RowResult, side: str, name: str) -> str:
    if not found.is_done or not has_score(found, side, name):
        return ""
    return f"{found.mean(side, name):.{DIGITS[name]}f}"


def published_text(found: RowResult, name: str, digits: int) -> str:
    return f"({found.row.published[name]:.{digits}f})" if name in found.row.published else ""


def beside(ours: str, theirs: str) -> str:
    return f"{ours} {theirs}".strip()


def share_text(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def difference(found: RowResult, reference: RowResult) -> Difference | None:
    """PSNR of a row minus that of the reference, photograph by photograph, in dB; None where there is none."""
    if not (found.is_done and reference.is_done) or found.row == reference.row or found.names != reference.names:
        return None
    return paired_difference(found.values("output", "psnr"), reference.values("output", "psnr"))


def difference_text(found: RowResult, reference: RowResult) -> str:
    """Mean and 95 % interval: +0.31 (+0.28 to +0.35)."""
    gap = difference(found, reference)
    if gap is None:
        return ""
    interval = gap.interval
    return f"{interval.mean:+.2f} ({interval.low:+.2f} to {interval.high:+.2f})"


def notes(rows: Sequence[RowResult], done: Sequence[RowResult]) -> list[str]:
    """What the rows were trained and scored on, how long, on which machine, and why rows are missing."""
    lines = []
    trained: dict[str, list[str]] = {}
    for found in rows:
        if found.plan is not None:
            trained.setdefault(training_text(found.plan), []).append(found.row.label)
    for text, labels in trained.items():
        lines.append(f"{', '.join(labels)}: {text}" if len(trained) > 1 else text)
    for found in done[:1]:
        assert found.plan is not None and found.result is not None
        photographs = f"{len(found.result['images'])} photographs of {', '.join(folder_names(found.plan, 'val'))}"
        lines.append(f"scored on {photographs}, degraded alike for every row (seed {found.plan.seed})")
        lists = [one.result["trained_on"] for one in done if one.result is not None]
        if seen := {name for names in lists for name in names or ()}:
            lines.append(f"ATTENTION: {len(seen)} of these photographs were trained on")
        elif None in lists:
            lines.append("not known whether any of them were trained on (the weights do not list what they saw)")
        if any("lpips" in row.row.published for row in rows) and not has_score(found, "output", "lpips"):
            lines.append("no LPIPS: AlexNet's weights are not there (serpent evaluate --lpips says where they belong)")
        lines.append(f"GMAC of an image of {found.result['side']} x {found.result['side']} pixels")
    if len({found.names for found in done}) > 1:
        lines.append("ATTENTION: the photographs changed between rows, whose scores are not comparable")
    for machine in dict.fromkeys(machine_text(found.result["machine"]) for found in done if found.result):
        lines.append(f"machine: {machine}")
    for found in rows:
        if found.status == "failed" and found.result is not None:
            lines.append(f"{found.row.name} failed: {without_places(found.result['reason'], found.plan)}")
    return lines


def without_places(text: str, plan: Plan | None) -> str:
    """`text` with files and folders by their own names, without what leads there on this machine or gives access."""
    text = re.sub(r"\w+://[^\s'\"]+", lambda url: PhotographSource(url[0]).label, text)
    if plan is not None:
        recipe = plan.recipe
        named = [str(plan.folder.parent), *(source.path for source in [*recipe.data, *recipe.val, *plan.val])]
        named += [recipe.init_from] if recipe.init_from is not None else []
        places = [source["path"] for source in by_places({"path": path} for path in named)]
        parents = {os.path.dirname(path.rstrip("/")) for path in [*named, *places] if os.path.isabs(path)}
        for parent in sorted(parents - {"/"}, key=len, reverse=True):
            text = text.replace(f"{parent}/", "")
    return printable(text.replace(f"{Path.home()}/", "~/"))


def folder_names(plan: Plan, kind: str) -> list[str]:
    """The folders' own names, with the range of shrinking where there is one."""
    names = []
    for source in plan.recipe.data if kind == "data" else plan.val:
        lowest, highest = source.shrink
        names.append(source.label + ("" if highest == 1 else f" (scaled down by {lowest:g} to {highest:g})"))
    return names


def training_text(plan: Plan) -> str:
    """The photographs, the length and the crops of a row's training."""
    recipe = plan.recipe
    length = f"{recipe.total_steps} steps" if recipe.epochs is None else f"{recipe.epochs:g} epochs"
    if recipe.time_budget is not None:
        length = f"{recipe.time_budget} for each row"
    stages = ", ".join(f"{stage.batch} x {stage.crop}²" for stage in recipe.stages)
    return f"trained on {', '.join(folder_names(plan, 'data'))}; {length}, crops of a step: {stages}"


def machine_text(machine: dict[str, Any]) -> str:
    device = machine["accelerator"] or f"{machine['processor']}, {machine['torch_threads']} threads"
    return f"{device}; torch {machine['versions']['torch']}, serpent-ir {machine['versions']['serpent-ir']}"


def on_terminal(table: Table, rows: Sequence[RowResult]) -> Iterator[RenderableType]:
    yield Text(table.title, style="bold")
    for part in sections(table, rows):
        shown = TerminalTable(box=None, padding=(0, 1), pad_edge=False)
        for index, column in enumerate(part.columns):
            shown.add_column(Text(column.replace(" (", "\n(")), justify="right" if index else "left", overflow="fold")
        for line in part.lines:
            shown.add_row(*map(Text, line))
        yield Text(f"\n{part.heading}", style="bold")
        yield shown
        for note in part.notes:
            yield Text(note)


def as_markdown(table: Table, command: str, rows: Sequence[RowResult]) -> str:
    """The table for a document."""
    lines = [f"# {table.title}", "", f"    {command}"]
    if table.source:
        lines += ["", f"In brackets: {table.source}."]
    for part in sections(table, rows):
        lines += ["", f"## {part.heading}", "", line_of(map(md, part.columns)), "|" + "---|" * len(part.columns)]
        lines += [line_of(map(md, line)) for line in part.lines]
        lines += ["", *(f"- {md(note)}" for note in part.notes)]
    return "\n".join(lines) + "\n"


def as_json(table: Table, command: str, rows: Sequence[RowResult]) -> dict[str, Any]:
    """Everything, without the places of folders on this machine; means and differences beside single scores."""
    references = {found.row.group: found for found in reversed(rows) if found.is_done}
    entries = []
    for found in rows:
        reference = references.get(found.row.group)
        entry: dict[str, Any] = {
            "name": found.row.name,
            "label": found.row.label,
            "group": found.row.group,
            "published": found.row.published,
            "status": found.status,
            "plan": None if found.plan is None else public(found.plan),
        }
        if found.is_done and found.result is not None:
            scores = found.result["images"][0]["output"]
            entry["mean"] = {
                side: {score: found.mean(side, score) for score in scores if has_score(found, side, score)}
                for side in ("input", "output")
            }
            gap = None if reference is None else difference(found, reference)
            entry["psnr_difference"] = None if gap is None else asdict(gap)
        result = found.result
        if result is not None and "reason" in result:
            result = {**result, "reason": without_places(result["reason"], found.plan)}
        entries.append({**entry, "result": result})
    return {
        "format": FORMAT,
        "version": VERSION,
        "title": table.title,
        "command": command,
        "source": table.source,
        "rows": entries,
    }


def public(plan: Plan) -> dict[str, Any]:
    """The plan with files and folders by their own names."""
    facts = plan.as_dict()
    for source in [*facts["recipe"]["data"], *facts["recipe"]["val"], *facts["val"]]:
        source["path"] = PhotographSource(source["path"]).label
    for name in ("run", "init_from"):
        if facts["recipe"][name] is not None:
            facts["recipe"][name] = Path(facts["recipe"][name]).name
    return facts


def write_report(table: Table, name: str, command: str, rows: Sequence[RowResult], out: Path) -> tuple[Path, Path]:
    """Write OUT/NAME.json and OUT/NAME.md; their paths. Raises FileWriteError when that is not possible."""
    as_data, as_text = out / f"{name}.json", out / f"{name}.md"
    write_json(as_json(table, command, rows), as_data)
    write_text(as_markdown(table, command, rows), as_text)
    return as_data, as_text
