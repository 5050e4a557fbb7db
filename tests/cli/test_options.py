from __future__ import annotations

import pytest

from serpent_ir.cli.options import parse_options
from serpent_ir.errors import UnknownNameError


def test_parse_options() -> None:
    parsed = parse_options(["a=1", "b=0.5", "c=box", "d=true", "e=x=y", "f="])
    assert parsed == {"a": 1, "b": 0.5, "c": "box", "d": True, "e": "x=y", "f": ""}
    assert parse_options(None) == {}


@pytest.mark.parametrize("text", ["noise_sigma", "=1", ""])
def test_what_is_no_assignment_is_named(text: str) -> None:
    with pytest.raises(UnknownNameError, match="key=value"):
        parse_options([text])
