"""Measure neural collapse: `python launch/measure.py --model=A [--model=B …] --corpus=TEXT --lexicon=gender --out=DIR`.

Each model is measured on the lexicon's words and on controls, and compared with the first. The same command again goes on
where it was killed. Writes measures.json, words.csv and stats.npz for each model, table.md and figures/. Several processes
share the work, if all are started with --coordinator (docs/scale.md), and process 0 writes and prints.
"""

import dataclasses

from absl import app, flags

from ncfair_jax import process_flags

MODEL = flags.DEFINE_multi_string("model", None, "Hugging Face folder or Hub name; may be repeated.", required=True)
flags.DEFINE_string("corpus", "wikitext2", "'wikitext2' (held-out part), 'gap', or a text file or folder.")
flags.DEFINE_string("data", "", "Folder with wikitext2/ and gap/; '' = public sources, pinned by hash.")
flags.DEFINE_string("lexicon", "gender", "Shipped lexicon or JSON file.")
flags.DEFINE_list("word_sets", ["lexicon", "frequency-matched", "random", "full"], "Sets to compare.")
flags.DEFINE_enum(
    "word_rule",
    "whole_word",
    ["whole_word", "listed_token", "first_piece"],
    "Which tokens count: those that are a whole word, the same wherever they stand, or first pieces as released.",
)
flags.DEFINE_enum("features", "transform", ["transform", "hidden"], "transform: what the decoder multiplies.")
flags.DEFINE_string("layer", "last", "'last', 'all' (collapse by depth as well), or a number; 0 = embeddings.")
flags.DEFINE_enum("alignment", "same", ["same", "next"], "next: the released code's shift.")
flags.DEFINE_float("held_out", 0.1, "Share of sentences that only NC4 sees.")
flags.DEFINE_integer("groups", 20, "Groups of the jackknife.")
flags.DEFINE_integer("permutations", 999, "Random lists of the permutation test; 0 = none.")
flags.DEFINE_integer("seed", 0, "Of the random words.")
flags.DEFINE_integer("max_sentences", 0, "Keep the first so many; 0 = all.")
OUT = flags.DEFINE_string("out", None, "Folder of the results.", required=True)
OFFLINE = flags.DEFINE_bool("offline", False, "Fetch nothing; say what would have been fetched.")
CACHE = flags.DEFINE_string("compilation_cache", "~/.cache/ncfair_jax/xla", "Folder of compiled programs; '' = none.")


def main(argv: list[str]) -> None:
    import jax

    from ncfair_jax import launcher
    from ncfair_jax.files.bucket import path_of
    from ncfair_jax.measurement import MeasureSettings, measure_models
    from ncfair_jax.processes import together

    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
    launcher.prepare_jax(CACHE.value)
    asked = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(MeasureSettings)}
    settings = MeasureSettings(**asked | {"word_sets": tuple(asked["word_sets"])})
    with together(*process_flags.asked()):
        table = measure_models(MODEL.value, settings, path_of(OUT.value), offline=OFFLINE.value)
        if jax.process_index() == 0:
            print(table)


if __name__ == "__main__":
    from ncfair_jax.stopping import told

    with told():  # from here on: the imports take seconds
        from ncfair_jax.launcher import one_line_errors, parse_flags

        with one_line_errors():
            app.run(main, flags_parser=parse_flags)
