"""Compile the train step for a TPU slice that is not here, and say what it needs and costs on each chip.

`python launch/compile_check.py --topology=v5e:16x16 --config=configs/roberta_nc.py --preset=bert-base [--config.a.b=value …]`
"""

import os
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

# Before jax is loaded: run nothing on a TPU, ask no machine what it is, and let others compile at the same time.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file of a run; its arguments after a colon.")
TOPOLOGY = flags.DEFINE_string("topology", "v5e:4x4", "Chip and shape of the slice: v5e:16x16, v6e:2x4, v5p:4x4x4.")
MODEL = flags.DEFINE_string("model", "", "Folder with a config.json; no weights are read.")
PRESET = flags.DEFINE_string("preset", "", "Instead of a folder: tiny, minilm, bert-base, bert-large.")
ROWS = flags.DEFINE_integer(
    "rows_per_device",
    None,
    "Rows of data.row_tokens tokens of an update, for each share of the batch; 64 unless config.train.batch_rows says how many "
    "there are on all devices.",
    lower_bound=1,
)
JSON = flags.DEFINE_string("json", "", "File for the figures.")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
    from ncfair_jax.aot.check import as_json, check
    from ncfair_jax.aot.table import table
    from ncfair_jax.files.atomic import write_json
    from ncfair_jax.registry import freeze, validate

    config = freeze(CONFIG.value)
    validate(config)
    report = check(config, TOPOLOGY.value, MODEL.value, PRESET.value, ROWS.value)
    print(table(report))
    if JSON.value:
        write_json(Path(JSON.value), as_json(report))


if __name__ == "__main__":
    from ncfair_jax.stopping import told

    with told():  # from here on: the imports take seconds
        from ncfair_jax.launcher import one_line_errors, parse_flags

        with one_line_errors():
            app.run(main, flags_parser=parse_flags)
