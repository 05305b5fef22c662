"""Compile the steps of docs/scale.md's table and print the table: `python launch/scale_table.py --out=FOLDER`.

What FOLDER holds already is not compiled again, so the command may be stopped and started. One step takes minutes, and 2.1 GB
of memory.
"""

import subprocess
import sys
from pathlib import Path

from absl import app, flags

CONFIG = flags.DEFINE_string("config", "configs/roberta_nc.py", "Config file of the step.")
OUT = flags.DEFINE_string("out", None, "Folder of the figures, one JSON file for each step and slice.", required=True)
COMPILE = flags.DEFINE_bool("compile", True, "--nocompile: print the table of what FOLDER holds.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
    from ncfair_jax.aot.scale import cases, table
    from ncfair_jax.files.reading import read_json

    folder = Path(OUT.value)
    files = {case: folder / f"{case.name}.json" for case in cases()}
    if COMPILE.value:
        folder.mkdir(parents=True, exist_ok=True)
        for case, file in files.items():
            if not file.exists():
                print(f"compiling {file.stem}", file=sys.stderr, flush=True)
                compile_one(case.flags, file)
    print(table({case: read_json(file) for case, file in files.items() if file.exists()}))


def compile_one(asked: list[str], file: Path) -> None:
    """Writes the figures of a step, or {"error": why it has none} if it does not fit."""
    from ncfair_jax.files.atomic import write_json

    command = [sys.executable, str(Path(__file__).with_name("compile_check.py")), f"--config={CONFIG.value}"]
    done = subprocess.run([*command, *asked, f"--json={file}"], capture_output=True, text=True)
    if done.returncode == 0:
        return
    told = (done.stderr.splitlines() or ["no message"])[-1].removeprefix("error: ")
    if "does not fit a chip" not in told:
        raise ValueError(f"{file.stem}: {told}")
    write_json(file, {"error": told})


if __name__ == "__main__":
    from ncfair_jax.stopping import told

    with told():  # from here on: the imports take seconds
        from ncfair_jax.launcher import one_line_errors, parse_flags

        with one_line_errors():
            app.run(main, flags_parser=parse_flags)
