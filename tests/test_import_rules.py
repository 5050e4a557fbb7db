"""Which part of the package may import which: the table of docs/architecture.md, checked on the source text.

Imports inside functions and under `if TYPE_CHECKING:` count as well, so that a cycle cannot hide in one.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "serpent_ir"

TABLE = Path(__file__).parent.parent / "docs" / "architecture.md"
VERSION = "__version__"

HEAVY = (
    "lightning",
    "torchmetrics",
    "jsonargparse",
    "tensorboard",
    "pyvips",
    "typer",
    "rich",
    "scipy",
    "torchvision",
    "matplotlib",
)


def rules_of_the_table() -> dict[str, set[str]]:
    """Part -> the parts it may import, from the rows of the table after its header."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| part | may import"))
    rules: dict[str, set[str]] = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        parts, imports = (cell.strip() for cell in line.strip("|").split("|"))
        everything = {"nothing inside": set(), "all of the above": set(rules)}
        for part in parts.split(", "):
            rules[part] = everything.get(imports, set(imports.split(", ")))
    return rules


ALLOWED = rules_of_the_table()


def part_of(path: Path) -> str:
    """src/serpent_ir/ops/native.py -> ops, src/serpent_ir/errors.py -> errors."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path: Path, text: str) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of everything that a file imports; for `from a import b` it is a.b."""
    package = ["serpent_ir", *path.relative_to(SOURCE).parent.parts]
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def violations(path: Path, text: str) -> list[str]:
    own = part_of(path)
    found = []
    for line, name in imported_modules(path, text):
        if not (name == "serpent_ir" or name.startswith("serpent_ir.")):
            continue
        part = name.split(".")[1] if "." in name else "(the package itself)"
        if part in (VERSION, own) or part in ALLOWED[own]:
            continue
        found.append(f"{path.relative_to(SOURCE.parent)}:{line}: {own} may not import {part}")
    return found


def source_files() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


def test_every_part_is_in_the_table() -> None:
    assert {part_of(path) for path in source_files()} <= {*ALLOWED}
    assert set.union(*ALLOWED.values()) <= {*ALLOWED}
    assert ALLOWED["models"] == {"errors", "files", "ops"} and ALLOWED["errors"] == set()


def test_parts_import_only_what_they_may() -> None:
    found = [line for path in source_files() for line in violations(path, path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_the_rules_have_no_cycle() -> None:
    order: list[str] = []
    while len(order) < len(ALLOWED):
        free = [part for part in ALLOWED if part not in order and ALLOWED[part] <= {*order}]
        assert free, f"a cycle among {sorted({*ALLOWED} - {*order})}"
        order += free


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from serpent_ir.models import create_model", True),
        ("from serpent_ir import models", True),
        ("import serpent_ir.models.serpent", True),
        ("import serpent_ir", True),
        ("from ..models import create_model", True),
        ("from .. import models", True),
        ("def late():\n    from ..models.serpent import Serpent", True),
        ("from ..errors import ShapeError", False),
        ("from .scan_order import scan_order", False),
        ("from serpent_ir import __version__", False),
        ("import torch", False),
        ("import serpent_irrelevant", False),
    ],
)
def test_forbidden_imports_are_seen(text: str, found: bool) -> None:
    assert bool(violations(SOURCE / "ops" / "example.py", text)) == found


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import serpent_ir", (*HEAVY, "torch")),
        ("from serpent_ir import create_model, load_model, ops, tasks", HEAVY),
        ("from serpent_ir import Restorer, restore", HEAVY),
        ("from serpent_ir.efficiency import run_profile", HEAVY),
        (
            "import serpent_ir.cli.main",
            ("lightning", "torchmetrics", "jsonargparse", "tensorboard", "pyvips", "torch", "numpy"),
        ),
    ],
)
def test_imports_stay_light(statement: str, forbidden: tuple[str, ...]) -> None:
    program = f"{statement}\nimport sys\nprint(*(name for name in {forbidden!r} if name in sys.modules))"
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert completed.stdout.split() == []
