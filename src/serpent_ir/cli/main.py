"""The `serpent` command: gathers the commands, one per file beside this one, and turns errors into exit statuses.

Exit status: 0 all done, 1 done but some files were left out, 2 an error in what was asked, 70 a defect of this program,
130 interrupted by Ctrl-C, 141 nobody read standard output to its end (as of `| head`), which is not an error.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from serpent_ir import __version__
from serpent_ir.cli import standard_output
from serpent_ir.cli.data import prepare
from serpent_ir.cli.degrade import degrade
from serpent_ir.cli.doctor import doctor
from serpent_ir.cli.evaluate import evaluate
from serpent_ir.cli.models import models
from serpent_ir.cli.profile import profile
from serpent_ir.cli.reproduce import reproduce
from serpent_ir.cli.restore import restore
from serpent_ir.cli.train import train
from serpent_ir.errors import SerpentError
from serpent_ir.machine import HUGE_PAGES_VARIABLE

TRACEBACK_VARIABLE = "SERPENT_TRACEBACK"
SAFE_PATH_VARIABLE = "PYTHONSAFEPATH"
"""Lets the processes that multiprocessing starts import nothing from the current folder, from Python 3.11 on."""

EXIT_ERROR = 2
EXIT_DEFECT = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

EPILOG = """
Try it:

$ serpent restore blurred.jpg sharp.jpg

$ serpent restore holiday/ holiday-restored/

`serpent COMMAND --help` explains a command.
"""

app = typer.Typer(
    name="serpent",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the `serpent` command. Ends the process with the command's exit status."""
    os.environ.setdefault(HUGE_PAGES_VARIABLE, "1")  # before torch is imported, which each command does when it runs
    os.environ.setdefault(SAFE_PATH_VARIABLE, "1")
    app()


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"serpent {__version__}")
        raise typer.Exit


@app.callback()
def serpent(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Restore blurred, noisy photographs with Serpent, a multi-scale selective state space model.

    Results go to standard output, progress and errors to standard error.
    A file is written whole or not at all.
    """


def with_exit_status(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with errors printed as one line on standard error instead of a traceback.

    With the environment variable SERPENT_TRACEBACK set to anything but the empty string or 0, errors are left alone.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        if os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0"):
            return command(*args, **kwargs)
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except BrokenPipeError:
            standard_output.abandon()
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        except SerpentError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(EXIT_ERROR) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Exception as error:
            typer.echo(f"error: unexpected {type(error).__name__}: {error}", err=True)
            typer.echo(f"This is a defect of serpent; {TRACEBACK_VARIABLE}=1 shows where it happened.", err=True)
            raise typer.Exit(EXIT_DEFECT) from None

    return run


def register(panel: str, *commands: Callable[..., None], **settings: Any) -> None:
    for command in commands:
        app.command(rich_help_panel=panel, **settings)(with_exit_status(command))


register("Images", restore, degrade, evaluate)
register("Models", models, profile)
register("Models", train, reproduce, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
register("This machine", doctor)

data = typer.Typer(help="Prepare photographs for training.", no_args_is_help=True)
data.command()(with_exit_status(prepare))
app.add_typer(data, name="data", rich_help_panel="Models")
