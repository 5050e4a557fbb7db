"""Several processes that train together (DDP): starting them, passing on signals, and what becomes of them.

Each process is a Python of its own that runs `main`: it reads the recipe (JSON) from standard input and writes its
answer to standard output. Where torchrun or srun have started the processes already, nothing of this is used.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from lightning.pytorch.accelerators import MPSAccelerator
from lightning.pytorch.plugins.environments import SLURMEnvironment

from serpent_ir import errors
from serpent_ir.efficiency import memory
from serpent_ir.errors import DeviceError, RecipeError, SerpentError, TrainingError
from serpent_ir.python_process import command_of
from serpent_ir.training.recipe import Recipe, recipe_from_dict

COMMAND = command_of("serpent_ir.training.processes")
SECONDS_BETWEEN_LOOKS = 0.1
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def started_by_cluster() -> bool:
    """Whether torchrun or srun have started this process as one of several that train together."""
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        return True
    return SLURMEnvironment.detect() and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def is_first(recipe: Recipe) -> bool:
    """Whether this process is the first of those that train together on all machines, or the only one."""
    if recipe.processes == 1:
        return True
    if started_by_cluster():
        return os.environ.get("RANK", os.environ.get("SLURM_PROCID")) == "0"
    return os.environ["LOCAL_RANK"] == "0" and os.environ["NODE_RANK"] == "0"


def run_processes(job: str, recipe: Recipe, count: int) -> dict[str, Any]:
    """Run `job` of `JOBS` in `count` processes on this machine; the answer of the first of them.

    SIGINT and SIGTERM go to the first process, which stops all; a second signal goes to all. Where it comes before the
    first step, and ends the process, it is raised here again. When one process fails, the others are ended and its
    error is raised here; TrainingError when it could not say what happened.
    """
    request = json.dumps({"job": job, "recipe": recipe.as_dict(), "command": sys.argv})
    address = _address(recipe)
    processes = [_started(rank, address, request) for rank in range(count)]
    try:
        with _signals_to(processes) as signals:
            while all(process.poll() in (None, 0) for process in processes):
                if all(process.poll() == 0 for process in processes):
                    break
                time.sleep(SECONDS_BETWEEN_LOOKS)
        ended = [process.poll() for process in processes]
    finally:
        for process in processes:
            process.kill()
        answers = [_answer(process.communicate()[0]) for process in processes]
    for answer in answers:
        if "error" in answer:
            raise getattr(errors, answer["error"])(*answer["words"])
    if len(signals) > 1:
        raise KeyboardInterrupt
    if signals and any(ended):
        signal.raise_signal(signals[0])
    for rank, status in enumerate(ended):
        if status not in (None, 0):
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            raise TrainingError(f"process {rank} of the {count} that train together {how}")
    if "result" not in answers[0]:
        raise TrainingError(f"process 0 of the {count} that train together ended without an answer")
    result: dict[str, Any] = answers[0]["result"]
    return result


def _answer(text: str) -> dict[str, Any]:
    """What a process has answered; nothing, where it was ended in the middle or something else wrote there."""
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _address(recipe: Recipe) -> dict[str, str]:
    """What the processes of all machines must know to find each other."""
    if recipe.nodes == 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if missing:
        raise RecipeError(
            f"recipe field nodes is {recipe.nodes}, and {', '.join(missing)} is not set",
            remedy="Set MASTER_ADDR, MASTER_PORT and NODE_RANK on each machine, or start with torchrun or srun.",
        )
    return {}


def _started(rank: int, address: dict[str, str], request: str) -> subprocess.Popen[str]:
    """A process in a session of its own, so that Ctrl-C reaches it through this process alone."""
    environment = {**os.environ, **address, "LOCAL_RANK": str(rank)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(COMMAND, env=environment, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:  # where it has ended already, who waits for it says how
        process.stdin.write(request)
    process.stdin = None
    return process


@contextmanager
def _signals_to(processes: list[subprocess.Popen[str]]) -> Iterator[list[int]]:
    """Within the block, the first signal goes to the first process, all later ones to all. Gives the signals so far."""
    seen: list[int] = []

    def pass_on(number: int, _: Any) -> None:
        for process in processes if seen else processes[:1]:
            if process.poll() is None:
                process.send_signal(number)
        seen.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _train(recipe: Recipe) -> dict[str, Any]:
    from serpent_ir.training.run import train_here

    return train_here(recipe).as_dict()


def _largest_batches(recipe: Recipe) -> dict[str, Any]:
    from serpent_ir.training.largest_batch import largest_batches

    return {"batches": largest_batches(recipe)}


JOBS: dict[str, Callable[[Recipe], dict[str, Any]]] = {"train": _train, "largest_batches": _largest_batches}


def main() -> None:
    """One process: request on standard input, answer on standard output. It ends with the one that started it."""
    memory.end_with_parent()
    request = json.load(sys.stdin)
    sys.argv = request["command"]  # what the run folder is to say
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    first = os.environ["LOCAL_RANK"] == "0" and os.environ["NODE_RANK"] == "0"
    logging.getLogger("serpent_ir").setLevel(logging.INFO if first else logging.ERROR)
    with answers:
        try:
            json.dump({"result": JOBS[request["job"]](recipe_from_dict(request["recipe"]))}, answers)
        except KeyboardInterrupt:
            os._exit(128 + signal.SIGINT)
        except SerpentError as error:
            said = {"error": type(error).__name__, "words": [error.came, error.expected, error.remedy]}
            json.dump(said, answers)
            answers.flush()
            os._exit(1)  # the others may wait for this one; without it, they are ended


def device_type(recipe: Recipe) -> str:
    """cuda, mps or cpu: the recipe's device, `auto` being what there is."""
    if recipe.device != "auto":
        return recipe.device
    return "cuda" if torch.cuda.is_available() else "mps" if MPSAccelerator.is_available() else "cpu"


def check_devices(recipe: Recipe) -> None:
    """Raise DeviceError when this machine lacks the device, or as many as the recipe asks for."""
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("recipe field device is 'cuda', and there is no CUDA device here", "auto, cpu or mps")
    device = device_type(recipe)
    if device == "cuda" and recipe.devices > torch.cuda.device_count():
        raise DeviceError(f"recipe field devices is {recipe.devices}", f"at most {torch.cuda.device_count()}")
    if device == "mps" and recipe.devices > 1:
        raise DeviceError(f"recipe field devices is {recipe.devices} on mps", "1")
