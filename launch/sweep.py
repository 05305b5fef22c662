"""Arms × seeds of one config: `python launch/sweep.py --config=configs/bec_minilm.py --workdir=W [--jobs=N] [--config.a.b=…]`.

One process for each run, so that a crash of one leaves the others alone. The same command again goes on where it was killed;
at its end stands one table with intervals and paired tests, also in W/table.md.
"""

import os

from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file with arms and seeds; see configs/bec_minilm.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.", required=True)
JOBS = flags.DEFINE_integer("jobs", 1, "Seeds that run side by side.", lower_bound=1)
CACHE = flags.DEFINE_string("compilation_cache", "~/.cache/ncfair_jax/xla", "Folder of compiled programs; '' = none.")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    from ncfair_jax import launcher
    from ncfair_jax.files.bucket import path_of
    from ncfair_jax.sweep import run_arms

    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
    if JOBS.value > 1:  # by default each process takes three quarters of a GPU's memory for itself
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    launcher.prepare_jax(CACHE.value)
    launcher.finish(*run_arms(CONFIG.value, path_of(WORKDIR.value), JOBS.value, CACHE.value))


if __name__ == "__main__":
    from ncfair_jax.stopping import told

    with told():  # from here on: the imports take seconds
        from ncfair_jax.launcher import one_line_errors, parse_flags

        with one_line_errors():
            app.run(main, flags_parser=parse_flags)
