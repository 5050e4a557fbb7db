"""Folders restored on a Ray cluster of two workers on this machine: what it does must be what one process does.

A cluster takes ten seconds to begin and workers as many, so that each test does much.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from files_of_a_batch import Mortal, Trouble, contents, invert, save
from typer.testing import CliRunner

import serpent_ir
from serpent_ir.cli.main import app
from serpent_ir.errors import CheckpointError, DeviceError, MissingExtraError, RestorationError, ShapeError
from serpent_ir.images import OutputOptions
from serpent_ir.models import create_model, save_model
from serpent_ir.python_process import command_of
from serpent_ir.restoration import cluster, ray_session
from serpent_ir.restoration.batch import run_batch
from serpent_ir.restoration.one import Each
from serpent_ir.restoration.outcome import FileOutcome
from serpent_ir.restoration.plan import Job, plan_folder
from serpent_ir.restoration.portable import Content, PortableRestorer
from serpent_ir.restoration.remote_files import Url, plan_anywhere

TINY = {"embed_channels": 6, "depths_down": (1,), "depth_bottleneck": 1, "depths_up": (0,), "directions": 1}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'serpent-ir[ray]'")


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of this machine that calls of this process use; its workers find the modules of the tests.

    They do not find those of the folder in which it was begun, unlike Ray's own habit.
    """
    folder = tmp_path_factory.mktemp("current")
    (folder / "pyvips.py").write_text("raise SystemExit('imported from the current folder')")
    modules = [str(Path(serpent_ir.__file__).parents[1]), str(Path(__file__).parents[1])]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        patch.setenv("PYTHONPATH", os.pathsep.join(modules))
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.chdir(folder)
        with ray_session.ray_session(None, 2):
            yield


@needs_ray
@pytest.mark.slow
def test_results_are_those_of_this_machine(tmp_path: Path, two_workers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, and so are what is said and the journal: the engines go on with each other's work."""
    monkeypatch.chdir(tmp_path)
    save_model(create_model("serpent-b", **TINY), "weights.safetensors", task="deblur")
    for number, name in enumerate(("a.png", "b c/ä%20?.tif", "b c/d.gif", "ü/e.jpg", os.fsdecode(b"\xff.png"))):
        save(Path("in") / name, number / 5, 9 + number, 13)
    Path("in/broken.png").write_bytes(Path("in/a.png").read_bytes()[:50])
    Path("in/notes.txt").touch()
    arguments = ["restore", "in", "--model", "weights.safetensors", "--device", "cpu", "--json"]
    runs = {
        engine: CliRunner().invoke(app, [*arguments, engine, "--engine", engine, "--workers", workers])
        for engine, workers in (("local", "1"), ("ray", "2"))
    }
    assert {engine: run.exit_code for engine, run in runs.items()} == {"local": 1, "ray": 1}, runs["ray"].output
    assert len(contents(Path("ray"))) == 5 and contents(Path("ray")) == contents(Path("local"))
    told = {
        engine: {
            line["source"]: (line["status"], line["width"], line["height"], line["notes"], line["reason"])
            for line in map(json.loads, run.stdout.splitlines())
            if "source" in line
        }
        for engine, run in runs.items()
    }
    assert told["ray"] == told["local"] and len(told["ray"]) == 6
    assert json.loads(runs["ray"].stdout.splitlines()[-1])["summary"]["ignored"] == ["in/notes.txt"]
    assert "5 of 6 images restored, 1 failed" in runs["ray"].stderr and "in/broken.png is " in runs["ray"].stderr
    again = CliRunner().invoke(app, [*arguments, "ray"])
    assert "5 were already" in again.stderr and again.exit_code == 1


@needs_ray
@pytest.mark.slow
def test_workers_that_die(tmp_path: Path, two_workers: None) -> None:
    """Behind URLs, too: each result is there once; a file that kills two workers is left out, and no other is."""
    for number in range(8):
        save(tmp_path / "in" / f"then{number:02}.png", number / 20)
    save(tmp_path / "in" / "once.png")
    run_batch(plan_folder(tmp_path / "in", tmp_path / "alone"), invert)
    for name in ("kill.png", "fail.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "empty.png").touch()
    source, target = (Url(f"simplecache::file://{tmp_path}/{name}") for name in ("in", "out"))
    plan, seen = plan_anywhere(source, target), list[FileOutcome[Any]]()
    summary = cluster.run_on_cluster(plan, Trouble(tmp_path), settings={}, workers=2, on_outcome=seen.append)
    assert sorted(outcome.job.name for outcome in seen) == sorted(job.name for job in plan.jobs)
    reasons = {outcome.job.name: str(outcome.reason) for outcome in summary.failed}
    assert sorted(reasons) == ["empty.png", "fail.png", "kill.png"]
    assert reasons["kill.png"] == f"{source}/kill.png: the worker that had it in hand died, twice"
    assert reasons["fail.png"] == "fail.png has too much fog." and "empty.png is not an image" in reasons["empty.png"]
    notes = {outcome.job.name: outcome.notes for outcome in summary.done}
    assert notes["once.png"] == ("a worker died while it had this file in hand, and it was done again",)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone") and len(notes) == 9

    for name in reasons:
        (tmp_path / "in" / name).unlink()
    summary = cluster.run_on_cluster(plan_anywhere(source, target), Trouble(tmp_path), settings={})
    assert len(summary.skipped) == 9 and not summary.failed


@needs_ray
@pytest.mark.slow
def test_a_cluster_of_this_machine_is_gone_with_the_command(tmp_path: Path) -> None:
    """Its processes and its folder, which nobody else may look into; standard output holds the lines of JSON alone."""
    save_model(create_model("serpent-b", **TINY), tmp_path / "weights.safetensors", task="deblur")
    save(tmp_path / "in" / "a.png")
    before = {*Path("/tmp").glob("ray-*")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [*command_of("serpent_ir.cli.main"), "restore", "in", "out", "--model", "weights.safetensors", "--json"]
    seen = set[Path]()
    with subprocess.Popen([*command, "--engine", "ray"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as run:
        while run.poll() is None:
            seen |= {*Path("/tmp").glob("ray-*")} - before
            time.sleep(0.1)
        assert run.stdout is not None
        line, summary = map(json.loads, run.stdout)
    assert run.returncode == 0 and line["status"] == "done" and summary["summary"]["done"] == 1
    (folder,) = seen
    assert not folder.exists()
    end = time.monotonic() + 20
    while processes := subprocess.run(["pgrep", "-f", str(folder)], stdout=subprocess.PIPE).stdout:
        assert time.monotonic() < end, processes
        time.sleep(0.5)


class Attempts:
    """Instead of the count on a cluster, and of `ray.get`."""

    def __init__(self, deaths: int = 0) -> None:
        self.begin, self.end = (
            SimpleNamespace(remote=lambda name: deaths + 1),
            SimpleNamespace(remote=lambda name: None),
        )


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(get_actor_id=lambda: "1")
    monkeypatch.setitem(
        sys.modules, "ray", SimpleNamespace(get=lambda value: value, get_runtime_context=lambda: context)
    )


def test_errors_of_the_program_are_sent(tmp_path: Path, no_ray: None) -> None:
    """With the traceback of where they happened; errors of ours are themselves."""
    staff = cluster.Staff(1, "cpu", 1, 1.0, 1.0, 0)
    station = cluster.Station(Trouble(tmp_path), OutputOptions(), staff, Attempts())
    for name, expected in (("wrong.png", "ZeroDivisionError: a defect"), ("shape.png", "a shape of no kind")):
        save(tmp_path / name)
        message = station({"item": Job(tmp_path / name, tmp_path / "out.png", name)})["item"]
        with pytest.raises((RuntimeError, ShapeError), match=expected):
            raise message.as_error()


@pytest.mark.parametrize(("deaths", "expected"), [(0, "broken.safetensors"), (2, "a worker died 2 times while")])
def test_a_worker_that_cannot_load_the_model_says_so(deaths: int, expected: str, tmp_path: Path, no_ray: None) -> None:
    """With every job that it is given: Ray would start it again for ever."""
    broken = PortableRestorer("deblur", Content("broken.safetensors", b"no weights"), {})
    staff = cluster.Staff(1, "cpu", 1, 1.0, 1.0, 0)
    station = cluster.Station(broken, OutputOptions(), staff, Attempts(deaths))
    error = station({"item": Job(tmp_path / "a.png", tmp_path / "b.png", "a.png")})["item"].as_error()
    assert isinstance(error, CheckpointError if deaths == 0 else RestorationError) and expected in str(error)


def test_a_picture_that_does_not_fit_into_memory_fails_behind_a_url(tmp_path: Path) -> None:
    class Small(Mortal):
        def is_large(self, height: int, width: int) -> bool:
            return height * width > 20

        def by_rows(self, source: Path, target: Path, options: OutputOptions) -> tuple[str, ...]:
            raise NotImplementedError

    save(tmp_path / "large.png", height=5)
    job = Job[Any](tmp_path / "large.png", Url("memory://out", "large.png"), "large.png")
    outcome = cluster.restored(job, Small(tmp_path), OutputOptions())
    assert outcome.status == "failed" and "large.png: 5 x 5 pixels do not fit into memory" in str(outcome.reason)


def test_what_is_warned_of_is_in_the_notes(tmp_path: Path) -> None:
    """What this package logs on another machine is told where people see it."""
    save(tmp_path / "a.png")
    transform = Each(lambda picture, _: replace(picture, metadata={"icc-profile-data": b"no profile"}))
    with cluster.collected_warnings() as notes:
        outcome = cluster.restored(Job(tmp_path / "a.png", tmp_path / "b.png", "a.png"), transform, OutputOptions())
    assert outcome.status == "done" and len(notes) == 1 and "a colour profile that is damaged" in notes[0]


@pytest.mark.parametrize(
    ("machines", "jobs", "workers", "device", "expected"),
    [
        ([{"CPU": 2}], 9, None, None, cluster.Staff(2, "cpu", 1, 1 / 2, 1.0, 0)),
        ([{"CPU": 8}], 3, None, "cpu", cluster.Staff(3, "cpu", 2, 1 / 3, 1.0, 0)),
        ([{"CPU": 8}] * 3, 900, 36, None, cluster.Staff(36, "cpu", 1, 1 / 12, 0.666, 0)),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8}], 9, None, None, cluster.Staff(2, "cuda", 8, 1.0, 1.0, 1)),
        ([{"CPU": 1, "GPU": 4}], 9, 3, "cuda:1", cluster.Staff(3, "cuda", 1, 1.0, 0.333, 1)),
        ([{"CPU": 8, "GPU": 2}], 9, 3, "cuda", None),
        ([{"CPU": 8}], 9, None, "cuda", None),
    ],
)
def test_how_many_workers_there_are_and_what_each_takes(
    machines: list[dict[str, int]], jobs: int, workers: int | None, device: str | None, expected: cluster.Staff | None
) -> None:
    total = {kind: sum(one.get(kind, 0) for one in machines) for kind in ("CPU", "GPU")}
    nodes = [{"Alive": True, "Resources": one} for one in machines] + [{"Alive": False, "Resources": {"CPU": 99}}]
    ray = SimpleNamespace(cluster_resources=lambda: total, nodes=lambda: nodes)
    if expected is None:
        with pytest.raises(DeviceError, match=r"workers with CUDA on a cluster of . GPUs"):
            cluster.staff_of(ray, jobs, workers, device)
    else:
        assert cluster.staff_of(ray, jobs, workers, device) == expected


def test_an_address_where_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
        ray_session.check_reachable(address)
    with pytest.raises(RestorationError, match=rf"cluster at '{address}' cannot be used \(.*refused"):
        ray_session.check_reachable(address)
    for other in ("local", "auto", ":6379"):
        ray_session.check_reachable(other)
    for wrong in ("ray://head:10001", "..:6379"):
        with pytest.raises(RestorationError, match="cannot be used"):
            ray_session.check_reachable(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in/a.png", "out"], "in/a.png is no folder"),
        (["-", "out"], "- is no folder"),
        (["in"], "name the folder or the URL for the results"),
        (["in", "out", "--check"], "--check and --batch are for --engine local"),
        (["s3://bucket/out", "--list", "list.txt"], "s3://bucket/out is a URL; those are for --engine ray, without"),
        (["in", "s3://bucket/out", "--engine", "local"], "s3://bucket/out is a URL; those are for --engine ray"),
    ],
)
def test_what_is_not_for_a_cluster(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("in/a.png"))
    run = CliRunner().invoke(app, ["restore", "--engine", "ray", *arguments])
    text = " ".join(run.stderr.replace("│", " ").split())
    assert run.exit_code == 2 and message in text and os.listdir() == ["in"]


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_the_extra_to_install_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(MissingExtraError, match=rf"'{missing}'.*serpent-ir\[ray\]"):
        ray_session.check_extra()
