"""Standard output carries what this package writes there, and nothing that others print."""

from __future__ import annotations

import sys
from threading import Thread

import pytest

from serpent_ir.cli import standard_output


def test_it_is_ours_alone_while_others_print(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), standard_output.ours_alone():
        print("a worker died")
        other = Thread(target=lambda: sys.stdout.write("so did another\n"))
        other.start()
        other.join()
        standard_output.write_line("{}")
        raise KeyError
    print("after it")
    standard_output.write_line("a.png")
    told = capsys.readouterr()
    assert told.out.splitlines() == ["{}", "after it", "a.png"]
    assert told.err.splitlines() == ["a worker died", "so did another"]
