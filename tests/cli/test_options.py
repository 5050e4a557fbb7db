from __future__ import annotations

import pytest

from serpent_ir.cli.options import parse_memory, parse_options
from serpent_ir.errors import RangeError, UnknownNameError


def test_parse_options() -> None:
    parsed = parse_options(["a=1", "b=0.5", "c=box", "d=true", "e=x=y", "f="])
    assert parsed == {"a": 1, "b": 0.5, "c": "box", "d": True, "e": "x=y", "f": ""}
    assert parse_options(None) == {}


@pytest.mark.parametrize("text", ["noise_sigma", "=1", ""])
def test_what_is_no_assignment_is_named(text: str) -> None:
    with pytest.raises(UnknownNameError, match="key=value"):
        parse_options([text])


def test_parse_memory() -> None:
    texts = {"1500": 1500, "1.5G": 1_500_000_000, "800m": 800_000_000, "2 kB": 2000, "1T": 10**12}
    assert {text: parse_memory(text) for text in texts} == texts and parse_memory(None) is None
    for wrong in ("", "G", "-1G", "1.5 GiB", "1e9"):
        with pytest.raises(RangeError, match="such as 1500M"):
            parse_memory(wrong)
