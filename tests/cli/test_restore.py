from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from files_of_a_batch import contents, save
from torch import Tensor
from typer.testing import CliRunner, Result

import serpent_ir
from serpent_ir.cli import standard_output
from serpent_ir.cli.main import app
from serpent_ir.errors import FileWriteError
from serpent_ir.images import Picture, read_image, write_image
from serpent_ir.models import create_model, save_model
from serpent_ir.restoration import Restorer


def run(*arguments: object) -> Result:
    """`serpent restore ARGUMENTS` on the CPU."""
    return CliRunner().invoke(app, ["restore", *map(str, arguments), "--device", "cpu"])


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "deblur-untrained.safetensors"
    save_model(create_model("serpent-b"), path, task="deblur")
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good images and two bad ones."""
    folder = tmp_path / "in"
    for name in ("a.png", "b/c.jpg"):
        write_image(Picture(torch.rand(3, 9, 12, generator=torch.Generator().manual_seed(0))), folder / name)
    (folder / "empty.png").touch()
    (folder / "b" / "text [1].png").write_text("not an image")
    return folder


def test_one_file(tmp_path: Path, folder: Path, weights: str) -> None:
    source = folder / "a.png"
    expected = Restorer("deblur", weights, "cpu")(read_image(source).pixels).mul(255).round() / 255
    for arguments, written in (
        ([], folder / "a-restored.png"),
        ([str(tmp_path / "out.tif")], tmp_path / "out.tif"),
        ([str(tmp_path)], tmp_path / "a.png"),
    ):
        result = run(source, *arguments, "--model", weights)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{written}\n"
        assert "a.png was restored" in result.stderr
        assert (read_image(written).pixels - expected).abs().max() <= 1.5 / 255


def test_degraded_and_restored_with_holes_and_without_a_task(tmp_path: Path, folder: Path) -> None:
    options = {"embed_channels": 6, "depths_down": (1,), "depth_bottleneck": 1, "depths_up": (0,), "in_channels": 4}
    weights = tmp_path / "weights.safetensors"
    save_model(create_model("serpent-b", **options), weights, task="inpaint")
    clean, source, target = folder / "a.png", tmp_path / "holed.png", tmp_path / "filled.png"
    result = CliRunner().invoke(app, ["degrade", str(clean), str(source), "--task", "inpaint"])
    assert result.exit_code == 0, result.output
    result = run(source, target, "--model", weights)
    assert result.exit_code == 0, result.output
    holed, filled = read_image(source), read_image(target)
    assert holed.alpha is not None and filled.alpha is None
    known = holed.alpha[0] == 1
    assert 0.5 < known.float().mean() < 1
    assert torch.equal(filled.pixels[:, known], read_image(clean).pixels[:, known])
    result = run(clean, target, "--model", weights)
    assert result.exit_code == 2 and "a.png has no transparency" in result.stderr


def test_folder_with_bad_files(tmp_path: Path, folder: Path, weights: str) -> None:
    result = run(folder, tmp_path / "out", "--model", weights)
    assert result.exit_code == 1
    assert result.stdout == f"{tmp_path / 'out'}\n"
    assert "2 of 4 images restored, 2 failed, in " in result.stderr
    summary = result.stderr.split("2 of 4 images restored")[1]
    assert f"  {folder / 'empty.png'} is empty (0 bytes)" in summary
    assert f"  {folder / 'b' / 'text [1].png'} is not an image of a known format" in summary
    assert sorted(contents(tmp_path / "out")) == ["a.png", "b/c.jpg"]


def test_folder_without_out_and_without_bad_files(folder: Path, weights: str) -> None:
    (folder / "empty.png").unlink()
    (folder / "b" / "text [1].png").unlink()
    result = run(folder, "--model", weights, "--backend", "portable")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{folder.with_name('in-restored')}\n"
    assert (folder.with_name("in-restored") / "b" / "c.jpg").exists()


def test_the_input_is_replaced_only_on_request(folder: Path, weights: str) -> None:
    source = folder / "a.png"
    before = source.read_bytes()
    result = run(source, source, "--model", weights)
    assert result.exit_code == 2 and "is the input itself" in result.stderr
    assert source.read_bytes() == before
    result = run(source, source, "--model", weights, "--overwrite")
    assert result.exit_code == 0 and source.read_bytes() != before


def test_fatal_errors_are_named(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for arguments, reason in (
        ((tmp_path / "nothing", tmp_path / "out"), "holds no image"),
        ((folder, folder / "out"), "lies in the input folder"),
        ((folder / "a.png", tmp_path / "out.bmp"), "a suffix among .png"),
        ((folder / "a.png", "--model", "serpent-z"), "serpent-z"),
        ((folder / "missing.png", "--model", "serpent-z"), "missing.png does not exist"),
        ((folder / "empty.png",), "is empty (0 bytes)"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and result.stdout == "", arguments
        assert reason in result.stderr, arguments
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.bmp").exists()


def test_interrupted(tmp_path: Path, folder: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during the second image: the first result stays, nothing is left of the second."""
    calls: list[Tensor] = []

    def second_time_interrupted(self: Restorer, image: Tensor, factor: int) -> Tensor:
        calls.append(image)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return image

    monkeypatch.setattr(Restorer, "_restored", second_time_interrupted)
    result = run(folder, tmp_path / "out", "--model", weights)
    assert result.exit_code == 130
    assert "1 of 4 images were done" in result.stderr and result.stdout == ""
    assert "the same command goes on with the rest" in result.stderr and list(contents(tmp_path / "out")) == ["a.png"]


def test_files_that_are_no_images_are_named_and_counted(folder: Path, weights: str) -> None:
    (folder / "empty.png").unlink()
    (folder / "b" / "text [1].png").unlink()
    for number in range(7):
        (folder / f"{number}.heic").touch()
    (folder / ".directory").touch()
    result = run(folder, "--model", weights)
    assert result.exit_code == 1
    assert "2 of 2 images restored, 0 failed" in result.stderr
    assert f"7 ignored, no images by their suffix or links to folders: {folder / '0.heic'}, " in result.stderr
    assert f"{folder / '4.heic'}, ..." in result.stderr and "5.heic" not in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_names_that_are_not_utf8(folder: Path, weights: str) -> None:
    """In a process of its own, whose standard output takes no surrogates: the path comes out byte for byte."""
    for kept, name in (("empty.png", b"empty\xff.png"), ("a.png", b"\xff.png")):
        os.rename(os.fsencode(folder / kept), os.fsencode(folder) + b"/" + name)
    (folder / "b" / "text [1].png").unlink()
    program = "from serpent_ir.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(serpent_ir.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}

    def serpent(*arguments: str | bytes | Path) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-c", program, "restore", *arguments, "--model", weights, "--device", "cpu"]
        return subprocess.run(command, env=environment, capture_output=True)

    one = serpent(os.fsencode(folder) + b"/\xff.png")
    assert (one.returncode, one.stdout) == (0, os.fsencode(folder) + b"/\xff-restored.png\n"), one.stderr
    several = serpent(folder, os.fsencode(folder.parent) + b"/out\xfe")
    assert (several.returncode, several.stdout) == (1, os.fsencode(folder.parent) + b"/out\xfe\n"), several.stderr
    assert rb"empty\udcff.png is empty" in several.stderr
    written = sorted(os.listdir(os.fsencode(folder.parent) + b"/out\xfe"))
    assert written == [b".serpent-journal.jsonl", b"b", b"\xff-restored.png", b"\xff.png"]


def test_ensemble_and_strength(tmp_path: Path, folder: Path, weights: str) -> None:
    pixels = read_image(folder / "a.png").pixels
    result = run(folder / "a.png", tmp_path / "a.tif", "--model", weights, "--ensemble", "--strength", "0.5")
    assert result.exit_code == 0, result.output
    expected = Restorer("deblur", weights, "cpu", ensemble=True, strength=0.5)(pixels)
    assert (read_image(tmp_path / "a.tif").pixels - expected).abs().max() <= 1.5 / 255
    result = run(folder / "a.png", tmp_path / "same.png", "--model", weights, "--strength", "0")
    assert result.exit_code == 0 and torch.equal(read_image(tmp_path / "same.png").pixels, pixels)
    result = run(folder / "a.png", tmp_path / "b.png", "--model", weights, "--strength", "1.5")
    assert result.exit_code == 2 and "strength 1.5; expected a number from 0" in result.stderr
    assert not (tmp_path / "b.png").exists()


def test_check_of_a_file(tmp_path: Path, folder: Path, weights: str) -> None:
    source, target = folder / "a.png", tmp_path / "out.png"
    result = run(source, target, "--model", weights, "--check")
    assert result.exit_code == 0 and result.stdout == f"{target}\n", result.output
    for words in ("the result ", "residual: standard deviation", "structure: correlation", "dB", "out-fidelity.png"):
        assert words in result.stderr
    drawn = read_image(tmp_path / "out-fidelity.png")
    assert (drawn.width, drawn.height) == (12, 9)
    before = source.read_bytes()
    result = run(source, source, "--model", weights, "--check", "--overwrite")
    assert result.exit_code == 2 and "would replace the input" in result.stderr and source.read_bytes() == before


def test_check_of_a_folder(tmp_path: Path, folder: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a result; a map that cannot be written is named, and the exit status says so."""
    (folder / "empty.png").unlink()
    (folder / "b" / "text [1].png").unlink()
    result = run(folder, tmp_path / "out", "--model", weights, "--check")
    assert result.exit_code == 0, result.output
    for name in ("a", "b/c"):
        assert (tmp_path / "out" / f"{name}-fidelity.png").exists()
    assert f"{tmp_path / 'out' / 'a.png'}: the result " in result.stderr and "dB" in result.stderr
    assert result.stdout == f"{tmp_path / 'out'}\n"
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*-fidelity.png")}
    os.utime(tmp_path / "out" / "a-fidelity.png", ns=(0, 5))  # older than its result
    result = run(folder, tmp_path / "out", "--model", weights, "--check")
    assert "2 were already" in result.stderr and "a.png: the result " in result.stderr
    assert "c.jpg: the result " not in result.stderr
    again = {path: path.stat().st_mtime_ns for path in drawn}
    assert [path.name for path in drawn if again[path] != drawn[path]] == ["a-fidelity.png"]
    (tmp_path / "out" / "a-fidelity.png").unlink()
    (tmp_path / "out" / "a-fidelity.png").mkdir()
    result = run(folder, tmp_path / "out", "--model", weights, "--check")
    assert result.exit_code == 1 and f"not checked {tmp_path / 'out' / 'a.png'}: " in result.stderr
    assert "2 were already, 0 failed" in result.stderr and "1 could not be checked" in result.stderr


def test_large_images(tmp_path: Path, folder: Path, tiny: str) -> None:
    """In tiles, by rows, and said; the same as in one piece but for seams."""
    write_image(Picture(torch.rand(3, 300, 260)), tmp_path / "a.png")
    plain = run(tmp_path / "a.png", tmp_path / "plain.png", "--model", tiny)
    assert plain.exit_code == 0 and "piece" not in plain.stderr
    arguments = ("--model", tiny, "--way", "tiles", "--tile", "128", "--overlap", "32", "--report")
    tiled = run(tmp_path / "a.png", tmp_path / "tiled.png", *arguments)
    assert tiled.exit_code == 0 and "in tiles of 128 with an overlap of 32 pixels" in tiled.stderr, tiled.output
    assert "beside one piece, on 260 x 300 pixels of the middle: at most" in tiled.stderr
    by_rows = run(tmp_path / "a.png", tmp_path / "rows.png", "--model", tiny, "--memory", "4M")
    assert by_rows.exit_code == 0 and "the same command goes on" in by_rows.stderr, by_rows.output
    first, second = (read_image(tmp_path / f"{name}.png").pixels for name in ("plain", "rows"))
    assert (first - second).abs().max() <= 1.01 / 255
    wrong = run(tmp_path / "a.png", tmp_path / "b.png", "--model", tiny, "--memory", "much")
    assert wrong.exit_code == 2 and "such as 1500M" in wrong.stderr


# -- lists, pipes, lines of JSON -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    options = {"embed_channels": 6, "depths_down": (1,), "depth_bottleneck": 1, "depths_up": (0,)}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(create_model("serpent-b", **options), path, task="deblur")
    return str(path)


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("standard", [False, True])
def test_a_list(tmp_path: Path, folder: Path, tiny: str, null: bool, standard: bool) -> None:
    paths = [folder / "a.png", folder / "b" / "c.jpg", folder / "missing.png", folder / "a.png"]
    content = (b"\0" if null else b"\r\n").join(os.fsencode(path) for path in (*paths, "")) + b"\n" * (not null)
    (tmp_path / "list").write_bytes(content)
    arguments = ["--list", "-" if standard else str(tmp_path / "list"), *(["-0"] if null else []), "--model", tiny]
    command = ["restore", str(tmp_path / "out"), *arguments, "--device", "cpu", "--format", "tiff"]
    result = CliRunner().invoke(app, command, input=content if standard else None)
    assert result.exit_code == 1 and result.stdout == f"{tmp_path / 'out'}\n", result.output
    assert "2 of 3 images restored, 1 failed" in result.stderr and "missing.png does not exist" in result.stderr
    assert sorted(contents(tmp_path / "out")) == ["a.tiff", "b/c.tiff"]


def test_pipes(tmp_path: Path, folder: Path, tiny: str) -> None:
    """Bytes in, the same bytes out as in a file, and nothing beside them; errors on standard error only."""
    assert run(folder / "a.png", tmp_path / "a.png", "--model", tiny).exit_code == 0
    expected, jpeg = (tmp_path / "a.png").read_bytes(), (folder / "b" / "c.jpg").read_bytes()
    source = (folder / "a.png").read_bytes()

    def piped(content: bytes, *arguments: object) -> Result:
        command = ["restore", *map(str, arguments), "--model", tiny, "--device", "cpu"]
        return CliRunner().invoke(app, command, input=content)

    assert piped(source, "-", "-").stdout_bytes == expected
    assert piped(source, "-").stdout_bytes == expected and piped(b"", folder / "a.png", "-").stdout_bytes == expected
    assert piped(jpeg, "-", "-").stdout_bytes[:3] == b"\xff\xd8\xff"
    assert piped(jpeg, "-", "-", "--format", "png").stdout_bytes[:4] == b"\x89PNG"
    best, worst = (len(piped(jpeg, "-", "-", "--quality", quality).stdout_bytes) for quality in (100, 1))
    assert best > worst
    result = piped(source, "-", tmp_path / "b.tif")
    assert result.stdout == f"{tmp_path / 'b.tif'}\n" and read_image(tmp_path / "b.tif").pixels.shape == (3, 9, 12)
    for content, arguments, reason in (
        (b"", ("-", "-"), "standard input is"),
        (b"text", ("-", "-"), "standard input is not an image of a known format"),
        (source[:70], ("-", "-"), "standard input is truncated or damaged"),
        (source, ("-", "-", "--json"), "--json is for files"),
        (source, ("-", tmp_path / "a.jpg", "--format", "png"), "does not end as a file of the format png"),
    ):
        result = piped(content, *arguments)
        assert (result.exit_code, result.stdout) == (2, "") and reason in result.stderr, result.output


def test_lines_of_json(tmp_path: Path, folder: Path, tiny: str) -> None:
    (folder / "b" / "photo.heic").touch()
    for skipped in (0, 2):
        result = run(folder, tmp_path / "out", "--model", tiny, "--json", "--depth", "8", "--workers", "1")
        *lines, last = [json.loads(line) for line in result.stdout.splitlines()]
        assert result.exit_code == 1 and len(lines) == 4
        done = {line["source"]: line for line in lines}[str(folder / "b" / "c.jpg")]
        assert done["status"] == ("skipped" if skipped else "done") and done["notes"] == []
        assert done["output"] == str(tmp_path / "out" / "b" / "c.jpg") and done["reason"] is None
        if not skipped:
            assert (done["width"], done["height"]) == (12, 9)
            assert all(done["seconds"][part] > 0 for part in ("read", "compute", "write"))
        failed = [line for line in lines if line["status"] == "failed"]
        assert len(failed) == 2 and all(line["reason"] for line in failed)
        summary = last["summary"]
        assert (summary["done"], summary["skipped"], summary["failed"]) == (2 - skipped, skipped, 2)
        assert summary["ignored"] == [str(folder / "b" / "photo.heic")] and summary["output"] == str(tmp_path / "out")
    one = run(folder / "a.png", tmp_path / "one.png", "--model", tiny, "--json")
    assert ["source" in line.partition(":")[0] for line in one.stdout.splitlines()] == [True, False]
    assert "the result is" not in one.stderr
    bad = run(folder / "empty.png", tmp_path / "one.png", "--model", tiny, "--json")
    line, last = map(json.loads, bad.stdout.splitlines())
    assert bad.exit_code == 2 and (line["status"], line["output"]) == ("failed", str(tmp_path / "one.png"))
    assert "is empty (0 bytes)" in line["reason"] and last["summary"]["failed"] == 1


def test_checks_in_lines_of_json(tmp_path: Path, folder: Path, tiny: str) -> None:
    for path in (folder / "empty.png", folder / "b" / "text [1].png"):
        path.unlink()
    (tmp_path / "out" / "b" / "c-fidelity.png").mkdir(parents=True)
    result = run(folder, tmp_path / "out", "--model", tiny, "--json", "--check", "--workers", "1")
    *lines, last = [json.loads(line) for line in result.stdout.splitlines()]
    found = {Path(line["source"]).name: line["fidelity"] for line in lines}
    assert result.exit_code == 1 and last["summary"]["unchecked"] == 1
    assert found["a.png"]["map"] == str(tmp_path / "out" / "a-fidelity.png") and found["a.png"]["ratio"] > 0
    assert found["a.png"]["verdict"] in result.stderr and list(found["c.jpg"]) == ["error"]
    result = run(folder, tmp_path / "out", "--model", tiny, "--json", "--check", "--workers", "1")
    assert {**json.loads(result.stdout.splitlines()[0])}["fidelity"] is None  # its map is there
    one = run(folder / "a.png", tmp_path / "one.png", "--model", tiny, "--json", "--check")
    line, last = map(json.loads, one.stdout.splitlines())
    assert line["fidelity"]["map"] == str(tmp_path / "one-fidelity.png") and last["summary"]["unchecked"] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_standard_output_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full, with nobody who reads, closed: named, silent, named. Nothing is a defect."""
    program = "from serpent_ir.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(serpent_ir.__file__).parents[1])}
    command = f'"{sys.executable}" -c "{program}" degrade "{folder / "a.png"}"'
    for shell, status, words in (
        (f"{command} - > /dev/full", 2, "standard output cannot be written (No space left on device)"),
        (f"{{ sleep 0.2; {command} --json 2>err; echo $? >&2; cat err >&2; }} | true", 0, "141\n"),
    ):
        done = subprocess.run(shell, shell=True, env=environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == status and words in done.stderr, (shell, done.stderr)
        assert "Traceback" not in done.stderr and "defect" not in done.stderr and "Exception ignored" not in done.stderr

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        with pytest.raises(FileWriteError, match="standard output is closed"):
            standard_output.write_line(folder)


def test_standard_input_that_is_the_output_or_closed(
    folder: Path, tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(*arguments: object) -> object:
        with pytest.raises(SystemExit) as end:
            app(["restore", *map(str, arguments), "--model", tiny, "--device", "cpu"])
        return end.value.code

    photo = folder / "a.png"
    before = photo.read_bytes()
    for extra, expected in (([], 2), (["--overwrite"], 0)):
        with photo.open("rb") as source, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", SimpleNamespace(buffer=source, fileno=source.fileno))
            assert status("-", photo, *extra) == expected
        assert (photo.read_bytes() == before) == (expected == 2)
        assert ("a.png is the input itself" in capsys.readouterr().err) == (expected == 2)
    monkeypatch.setattr(sys, "stdin", None)
    for arguments in (("-", "-"), (folder / "out", "--list", "-")):
        assert status(*arguments) == 2 and "standard input is closed" in capsys.readouterr().err


def test_where_results_without_a_name_go(tmp_path: Path, folder: Path, tiny: str) -> None:
    """Beside a link, not what it leads to; in a folder that is to be made; of a list with a byte order mark."""
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "album").symlink_to(folder / "b")
    result = run(tmp_path / "links" / "album", "--model", tiny)
    assert result.stdout == f"{tmp_path / 'links' / 'album-restored'}\n"
    result = run(folder / "a.png", f"{tmp_path / 'new'}/", "--model", tiny)
    assert result.stdout == f"{tmp_path / 'new' / 'a.png'}\n" and (tmp_path / "new" / "a.png").is_file()
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf" + os.fsencode(folder / "a.png"))
    assert run(tmp_path / "out", "--list", tmp_path / "list", "--model", tiny).exit_code == 0


def test_again_and_other_settings(tmp_path: Path, tiny: str) -> None:
    save(tmp_path / "in" / "a.png")

    def done(*arguments: object) -> bool:
        result = run(tmp_path / "in", tmp_path / "out", "--model", tiny, *arguments)
        assert result.exit_code == 0, result.output
        return "1 of 1 images restored" in result.stderr

    assert done() and not done() and done("--again") and done("--depth", "16") and not done("--depth", "16")


def test_arguments_that_do_not_go_together(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "list").write_bytes(b"a\0b")
    for arguments, reason in (
        ((), "which image?"),
        (("--list", tmp_path / "list"), "the folder for the results"),
        ((tmp_path / "out", tmp_path / "more", "--list", tmp_path / "list"), "the folder for the results"),
        ((tmp_path / "out", "--list", tmp_path / "list"), "holds zero bytes"),
        ((tmp_path / "out", "--list", tmp_path / "none"), "none cannot be read"),
        ((folder, "--format", "bmp"), "bmp"),
        (("-", "--list", tmp_path / "list"), "go into a folder"),
        ((folder / "a.png", "-0"), "--null is for the paths of --list"),
        ((folder / "a.png", "--workers", "2", "--again"), "--workers, --again: for many files"),
        (("-", "--batch", "2"), "--batch: for many files"),
        (("/",), "has nothing beside it"),
        ((folder, tmp_path / "out", "--overwrite"), "--overwrite is for a single file"),
        ((folder / "a.png", "--ray-address", "10.0.0.1:6379"), "--ray-address is for --engine ray"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "") and reason in result.stderr, result.output
