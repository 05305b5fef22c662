"""Speed beside PyTorch on this machine: `python launch/speed.py --model=FOLDER --data=DATA [--compare=none]`.

All benchmarks: `… --suite`. The train step alone on any device: `… --preset=bert-base --dtype=bfloat16 --tokens=128,512`.
The host's part, making batches: `python launch/speed.py --data --json=FILE`. All of training on an accelerator, within a
time that is given: `python launch/speed.py --device --json=FILE` (`tests/device/run.sh`).
"""

import json
from pathlib import Path

from absl import app, flags

MODEL = flags.DEFINE_string("model", "", "Hugging Face folder that both sides load.")
TIME_DATA = "true"  # what absl makes of a flag without a value
DATA = flags.DEFINE_flag(
    flags.Flag(
        flags.ArgumentParser(),
        flags.ArgumentSerializer(),
        "data",
        "",
        "--data=DIR: folder with gap/ and crows_pairs/. --data alone: time how batches are made instead.",
        boolean=True,
    )
)
BATCHES = flags.DEFINE_list("batches", None, "Sentences a step; one comparison each. 16,64; of --data 16 to 16384.")
SENTENCES = flags.DEFINE_integer("sentences", 200_000, "Sentences of the corpus of --data.")
LENGTHS = flags.DEFINE_string("lengths", "", "Text file whose lines give the lengths of --data; '' = those of GAP.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of every contestant.")
STEPS = flags.DEFINE_integer("steps", 2, "Optimizer steps in a turn.")
NC3_STEPS = flags.DEFINE_integer("nc3_steps", 20, "Alternating steps for the cost of NC3.")
PAIRS = flags.DEFINE_integer("pairs", 40, "CrowS-Pairs pairs of both sides; ours also scores ten times as many.")
COMPARE = flags.DEFINE_enum("compare", "torch", ["torch", "none"], "none: ncfair_jax alone, without PyTorch.")
PRESET = flags.DEFINE_string("preset", "", "Time only the train step of: tiny, minilm, bert-base, bert-large.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Activations of the preset.")
ATTENTION = flags.DEFINE_string("attention", "xla", "Attention of the preset; only xla has attention dropout.")
LAYERS = flags.DEFINE_enum("layers", "unrolled", ["scanned", "unrolled"], "Layers of the preset: one loop or not.")
BITS = flags.DEFINE_enum("dropout_bits", "threefry", ["threefry", "rbg", "unsafe_rbg"], "Dropout's generator, preset.")
TOKENS = flags.DEFINE_list("tokens", ["128"], "Row lengths of the preset.")
ROWS = flags.DEFINE_integer("rows", 0, "Rows of 128 tokens a step of the preset; 0 = by backend.")
MATMUL = flags.DEFINE_integer("matmul", 0, "Size of the bare matrix product; 0 = by backend.")
COLLAPSE = flags.DEFINE_bool("collapse", False, "Time measuring instead: pairwise figures, NC4, the moments pass.")
SUITE = flags.DEFINE_bool("suite", False, "Time all intrinsic benchmarks instead, beside scoring one row at a time.")
SAMPLE = flags.DEFINE_integer("sample", 200, "Requests of each benchmark of the suite that PyTorch scores.")
DEVICE = flags.DEFINE_bool(
    "device", False, "Measure training on the accelerator instead, beside PyTorch on the same one."
)
SECONDS = flags.DEFINE_float(
    "seconds", 540.0, "Of the clock, for all of --device; what does not fit is skipped by name."
)
ONLY = flags.DEFINE_string("only", "", "Regular expression: of --device measure only what it matches.")
OUT = flags.DEFINE_string("out", "", "JSON file for the figures.")
flags.DEFINE_alias("json", "out")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
    if DEVICE.value:
        measure_device()
        return
    from ncfair_jax.speed import accelerator, collapse, compare, data, suite, suite_table, tables
    from ncfair_jax.speed.contestants import sizes

    if DATA.value == TIME_DATA:
        asked = BATCHES.value or ["16", "64", "256", "1024", "4096", "16384"]
        result = data.run(sizes("batches", asked), SENTENCES.value, LENGTHS.value)
        print(data.data_table(result))
    elif PRESET.value:
        shape = {"row_tokens": sizes("tokens", TOKENS.value), "rows": ROWS.value, "matmul": MATMUL.value}
        kind = {"dtype": DTYPE.value, "attention": ATTENTION.value, "layers": LAYERS.value, "dropout_bits": BITS.value}
        result = accelerator.time_train_step(PRESET.value, **kind, **shape)
        print(tables.accelerator_table(result))
    elif SUITE.value:
        result = suite.run(suite.Settings(MODEL.value, DATA.value, ROUNDS.value, SAMPLE.value, COMPARE.value))
        print(suite_table.suite_table(result))
    elif COLLAPSE.value:
        result = collapse.run(MODEL.value, DATA.value)
        print(tables.collapse_table(result))
    else:
        counts = (
            sizes("batches", BATCHES.value or ["16", "64"]),
            ROUNDS.value,
            STEPS.value,
            NC3_STEPS.value,
            PAIRS.value,
        )
        result = compare.run(compare.Settings(MODEL.value, DATA.value, *counts, COMPARE.value, MATMUL.value or 2048))
        print(tables.markdown(result))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure_device() -> None:
    """`--device`, which needs few of the package's libraries."""
    from ncfair_jax.speed.worker import load_without_torch

    load_without_torch()
    from ncfair_jax.speed import device, device_table
    from ncfair_jax.speed.contestants import SpeedError

    if not OUT.value:
        raise SpeedError("--device writes its figures as it gets them; name a file by --json=FILE")
    settings = device.Settings(seconds=SECONDS.value, only=ONLY.value)
    if PRESET.value:
        settings = device.small(PRESET.value, settings)
    print(device_table.device_table(device.run(settings, Path(OUT.value))))


if __name__ == "__main__":
    from ncfair_jax.stopping import told

    with told():  # from here on: the imports take seconds
        from ncfair_jax.launcher import one_line_errors, parse_flags

        with one_line_errors():
            app.run(main, flags_parser=parse_flags)
