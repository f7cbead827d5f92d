"""``personalive``: all commands, and errors as one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from personalive import __version__
from personalive.cli import (
    animate,
    batch,
    benchmark,
    camera,
    data,
    doctor,
    evaluate,
    export,
    motion,
    serve,
    train,
    verify,
    weights,
)
from personalive.cli.config import CliConfig
from personalive.cli.console import error_line, one_line, open_streams
from personalive.errors import PersonaLiveError

NAME = "personalive"
DEBUG_ENV = "PERSONALIVE_DEBUG"
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes; 130 is 128 + SIGINT, as shells have it
# How long torch's threads wait for each other by turning in circles, read when torch is imported. Its own default
# holds up whoever shares the processor, and through them torch: on two cores beside one busy process 0.7 frames per
# second became 2.9, and 10.2 on an idle machine 9.9.
_SPIN = ("GOMP_SPINCOUNT", "20000")
# Typer does not export this base of all its usage errors.
_ClickError = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

_EPILOG = """
\b
Examples:
  personalive doctor                              check this machine
  personalive animate --demo                      a video from the bundled model, no download
  personalive serve --weights tiny                a live page, for a camera
  personalive weights download                    the released weights, 12 GB
  personalive animate me.jpg clip.mp4 -o video.mp4
  personalive evaluate -o scores --weights tiny   scores of a model
  personalive train motion my-set --run runs/motion

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
"""

app = typer.Typer(
    name=NAME,
    help="One portrait and one driving face become a video of that portrait performing.",
    epilog=_EPILOG,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"max_content_width": CliConfig.docs_width},
)
app.command(name="animate", epilog=animate.EPILOG)(animate.animate)
app.command(name="batch", epilog=batch.EPILOG)(batch.batch)
app.command(name="evaluate", epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command(name="serve", epilog=serve.EPILOG)(serve.serve)
app.add_typer(motion.app, name="motion")
app.command(name="camera", epilog=camera.EPILOG)(camera.camera)
app.add_typer(weights.app, name="weights")
app.add_typer(export.app, name="export")
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.command(name="verify", epilog=verify.EPILOG)(verify.verify)
app.command(name="benchmark", epilog=benchmark.EPILOG)(benchmark.benchmark)
app.command(name="doctor", epilog=doctor.EPILOG)(doctor.doctor)


@dataclass
class _Settings:
    """Settings of every command."""

    debug: bool


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug/--no-debug", help=f"Show tracebacks of errors; also {DEBUG_ENV}=1.")
    ] = False,
) -> None:
    if debug:
        context.obj.debug = True
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; every error becomes one line on stderr.

    Args:
        arguments: without the program's name; those of the process by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault(*_SPIN)
    settings = _Settings(debug=os.environ.get(DEBUG_ENV, "") not in ("", "0"))
    if threading.current_thread() is threading.main_thread():
        _stop_by_signals()
    open_streams()
    try:
        _run(given, settings)
    except typer.Exit as done:
        return done.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (a traceback is never for the user)
        if settings.debug:
            traceback.print_exception(error)
        line, code = _explain(error, given)
        error_line(line)
        return code
    return OK


def _stop_by_signals() -> None:
    """End by SIGTERM and a closed terminal as by Ctrl-C; ``nohup`` has that ignored, and it stays so."""
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)


def _stop(signum: int, frame: object) -> None:
    """End as by Ctrl-C, so that a video is left playable then too."""
    raise KeyboardInterrupt


def _run(arguments: list[str], settings: _Settings) -> None:
    command = typer.main.get_command(app)
    with warnings.catch_warnings():
        if not settings.debug and not sys.warnoptions:
            warnings.simplefilter("ignore")  # libraries' remarks to developers
            for library in ("TRANSFORMERS", "DIFFUSERS"):
                os.environ.setdefault(f"{library}_VERBOSITY", "error")
        with command.make_context(NAME, arguments, obj=settings) as context:
            command.invoke(context)
        sys.stdout.flush()


def _explain(error: BaseException, arguments: list[str]) -> tuple[str, int]:
    """Line that the user sees, and exit code."""
    notes = "; ".join(getattr(error, "__notes__", []))
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted: {notes or 'nothing was written'}", INTERRUPTED
    if isinstance(error, PersonaLiveError):
        return f"error: {error}{'; ' if notes else ''}{notes}", FAILED
    if isinstance(error, _ClickError):
        return _usage(error), USAGE
    text = one_line(str(error))
    again = " ".join([NAME, "--debug", *arguments])
    return (
        f"error: unexpected {type(error).__name__}{': ' if text else ''}{text}: please report it with the output of "
        f"`{again}` and `{NAME} doctor`{'; ' if notes else ''}{notes}"
    ), FAILED


def _usage(error: Any) -> str:
    """Message of Typer, with the command that shows help."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else NAME
    message = one_line(error.format_message()).removeprefix("Invalid value: ").rstrip(".")
    return f"error: {message}; see `{command} --help`"
