"""What the commands in launch/ share: flags and errors in one line, jax set up."""

import ast
import os
import re
import runpy
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import Formatter
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging

from ncfair_jax import exits
from ncfair_jax.config import ConfigError
from ncfair_jax.divergence import DivergedError
from ncfair_jax.files.bucket import path_of

# What a user can mend. Anything else is a fault of ours and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ArithmeticError)
# Where the lines of a traceback are that say nothing to whoever wrote the config file.
NOT_THEIRS = (str(Path(__file__).parent), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), "<")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns the errors that a user can mend into one line and an exit code (`exits`); `stopping.told` does so for a stop.

    NCFAIR_TRACEBACK=1 shows where an error arose.
    """
    try:
        yield
    except USER_ERRORS as error:
        if os.environ.get("NCFAIR_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(exits.DIVERGED if isinstance(error, DivergedError) else exits.MISTAKE) from None


def finish(table: str, diverged: Sequence[str]) -> None:
    """The last lines of a command: the table, and which losses grew, with an exit code of its own."""
    if table:
        print(table)
    for text in diverged:
        print(f"warning: {text}", file=sys.stderr)
    if diverged:
        raise SystemExit(exits.DIVERGED)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with a misspelt `--config.x` in one line that suggests the right one."""
    logging.set_verbosity(logging.WARNING)  # orbax and datasets tell every step; --verbosity=0 shows it
    logging.get_absl_handler().setFormatter(Formatter("%(levelname)s: %(message)s"))
    try:
        file, _ = config_file(argv)
        if file and not Path(file).is_file():  # ml_collections would tell it later, in four lines
            raise ConfigError(f"--config={file}: there is no such file; configs/ has one for each method")
        return flags.FLAGS(argv)
    except Exception as error:  # a config file can raise anything
        if os.environ.get("NCFAIR_TRACEBACK"):
            raise
        text = foreign_flag(argv) or flag_error(error)
        print(f"error: {text}; --helpshort lists the flags", file=sys.stderr)
        raise SystemExit(exits.MISTAKE) from None


def flag_error(error: Exception) -> str:
    """One line on flags that cannot be parsed, or on a config file that cannot be run."""
    if isinstance(error, AttributeError) and error.name == "get_config":
        return "the config file has no function get_config; it returns base_config(), with some fields changed"
    if isinstance(error, (flags.Error, AttributeError, KeyError, ConfigError)):
        return without_traceback(unquoted(str(error.args[0] if error.args else error)))
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    place = last_theirs([(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)])
    return f"{type(error).__name__}: {error} {place}"


def last_theirs(frames: Sequence[tuple[str, Any]]) -> str:
    """Of the files and lines of a traceback, the last one that is a user's: `(mine.py, line 3)`."""
    file, line = ([frame for frame in frames if not frame[0].startswith(NOT_THEIRS)] or frames)[-1]
    return f"({file}, line {line})"


def config_file(argv: list[str]) -> tuple[str, list[str]]:
    """The config file that a command line names, and the argument after its colon, if there is one; "" if it names none."""
    named = re.search(r"^--?config[=\n](.+?)(?::(.*))?$", "\n".join(argv), re.MULTILINE)
    return ("", []) if named is None else (named[1], [] if named[2] is None else [named[2]])


def unquoted(text: str) -> str:
    """The message of an error that quotes it once more, as KeyErrors do."""
    while text[:1] in ("'", '"') and text.endswith(text[0]):
        try:
            text = str(ast.literal_eval(text))
        except (SyntaxError, ValueError):
            break
    return text.replace("\nDid you mean", "; did you mean")


def foreign_flag(argv: list[str]) -> str:
    """One line on the first `--config.x=…` whose field another method has than that of the config file; "" if there is none."""
    file, arguments = config_file(argv)
    if not file:
        return ""
    from ncfair_jax.registry import of_another  # loads all methods, which only commands with a config file need

    try:
        made = runpy.run_path(file)["get_config"](*arguments)
        method = made.objective.name
    except Exception:  # of the config file: it is told in its own words
        return ""
    fields = re.findall(r"^--?config\.([\w.]+)", "\n".join(argv), re.MULTILINE)
    return next((line for field in fields if (line := of_another(field, method))), "")


def without_traceback(text: str) -> str:
    """One line of an absl error; of a config file that failed, what ml_collections tells as a traceback, only its end.

    A config file's ConfigError speaks for itself; for any other error its type and the line that raised it are kept.
    """
    head, found, rest = text.partition("Traceback (most recent call last):")
    if not found:
        return text.replace("\n", " ")
    flag = head.partition(": Error whilst")[0]
    lines = rest.strip().splitlines()
    told = max(i for i, line in enumerate(lines) if line.startswith("  ")) + 1  # frames are indented
    kind, _, message = " ".join(lines[told:]).partition(": ")
    if kind.endswith(f".{ConfigError.__name__}"):
        return f"{flag}: {message}"
    frames = re.findall(r'File "(.+)", line (\d+)', rest)
    return f"{flag}: {kind}: {message} {last_theirs(frames)}"


def prepare_jax(cache: str = "") -> None:
    """Compilation cache; must precede every other use of jax."""
    if cache:
        jax.config.update("jax_compilation_cache_dir", str(path_of(cache).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
