"""Measure, debias, judge, export: `python launch/train.py --config=configs/X.py [--workdir=W] [--config.a.b=value …]`.

The same command again resumes. Every field of the config can be overridden. A config with arms runs all of them.
"""

import os
import sys

from absl import app, flags
from ml_collections import config_flags

from ncfair_jax import process_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file; arguments after a colon, e.g. configs/bec_nc.py:paper"
)
WORKDIR = flags.DEFINE_string(
    "workdir", "", "Identity of the run, on disk or gs://…; default runs/<config name>-<hash of the config>."
)
CACHE = flags.DEFINE_string("compilation_cache", "~/.cache/ncfair_jax/xla", "Folder of compiled programs; '' = none.")
INIT_FROM = flags.DEFINE_string(
    "init_from",
    "",
    "RUN@STEP: train from the parameters of that run's checkpoint; the same as --config.model.init_from.",
)
OFFLINE = flags.DEFINE_bool("offline", False, "Fetch nothing; say what would have been fetched.")
DETERMINISTIC = flags.DEFINE_bool("deterministic", False, "On a GPU: bitwise repeatable kernels, slower.")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    from ncfair_jax import launcher
    from ncfair_jax.files.bucket import path_of
    from ncfair_jax.processes import together
    from ncfair_jax.sweep import run_config

    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
    launcher.prepare_jax(CACHE.value)
    if INIT_FROM.value:
        CONFIG.value.model.init_from = INIT_FROM.value
    with together(*process_flags.asked()):
        outcome = run_config(CONFIG.value, path_of(WORKDIR.value) if WORKDIR.value else None)
    launcher.finish(*outcome)


def asked(flag: str) -> bool:
    """Whether a switch is on the command line: these two must be known before jax and the Hub's client are loaded."""
    return any(arg.lstrip("-") in (flag, f"{flag}=true") for arg in sys.argv[1:])


if __name__ == "__main__":
    if asked("offline"):
        os.environ["HF_HUB_OFFLINE"] = "1"
    if asked("deterministic"):
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
    from ncfair_jax.stopping import told

    with told():  # from here on: the imports take seconds
        from ncfair_jax.launcher import one_line_errors, parse_flags

        with one_line_errors():
            app.run(main, flags_parser=parse_flags)
