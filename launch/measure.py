"""Measure neural collapse: `python launch/measure.py --model=A [--model=B …] --corpus=TEXT --lexicon=gender --out=DIR`.

Each model is measured on the lexicon's words and on controls, and compared with the first. The same command again goes on
where it was killed. Writes measures.json, words.csv and stats.npz for each model, table.md and figures/.
"""

from pathlib import Path

from absl import app, flags

MODEL = flags.DEFINE_multi_string("model", None, "Hugging Face folder or Hub name; may be repeated.", required=True)
CORPUS = flags.DEFINE_string("corpus", "wikitext2", "'wikitext2' (held-out part), 'gap', or a text file or folder.")
DATA = flags.DEFINE_string("data", "", "Folder with wikitext2/ and gap/; '' = public sources, pinned by hash.")
LEXICON = flags.DEFINE_string("lexicon", "gender", "Shipped lexicon or JSON file.")
WORD_SETS = flags.DEFINE_list("word_sets", ["lexicon", "frequency-matched", "random", "full"], "Sets to compare.")
WORD_RULE = flags.DEFINE_enum("word_rule", "whole_word", ["whole_word", "first_piece"], "How words become classes.")
FEATURES = flags.DEFINE_enum(
    "features", "transform", ["transform", "hidden"], "transform: what the decoder multiplies."
)
LAYER = flags.DEFINE_string("layer", "last", "'last', 'all' (collapse by depth as well), or a number; 0 = embeddings.")
ALIGNMENT = flags.DEFINE_enum("alignment", "same", ["same", "next"], "next: the released code's shift.")
HELD_OUT = flags.DEFINE_float("held_out", 0.1, "Share of sentences that only NC4 sees.")
GROUPS = flags.DEFINE_integer("groups", 20, "Groups of the jackknife.")
PERMUTATIONS = flags.DEFINE_integer("permutations", 999, "Random lists of the permutation test; 0 = none.")
SEED = flags.DEFINE_integer("seed", 0, "Of the random words.")
MAX_SENTENCES = flags.DEFINE_integer("max_sentences", 0, "Keep the first so many; 0 = all.")
OUT = flags.DEFINE_string("out", None, "Folder of the results.", required=True)
OFFLINE = flags.DEFINE_bool("offline", False, "Fetch nothing; say what would have been fetched.")
CACHE = flags.DEFINE_string("compilation_cache", "~/.cache/ncfair_jax/xla", "Folder of compiled programs; '' = none.")


def main(argv: list[str]) -> None:
    from ncfair_jax import launcher
    from ncfair_jax.measurement import MeasureSettings, measure

    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
    launcher.prepare_jax(CACHE.value)
    settings = MeasureSettings(
        corpus=CORPUS.value,
        data=DATA.value,
        lexicon=LEXICON.value,
        word_sets=tuple(WORD_SETS.value),
        word_rule=WORD_RULE.value,
        features=FEATURES.value,
        layer=LAYER.value,
        alignment=ALIGNMENT.value,
        held_out=HELD_OUT.value,
        groups=GROUPS.value,
        permutations=PERMUTATIONS.value,
        seed=SEED.value,
        max_sentences=MAX_SENTENCES.value,
    )
    print(measure(MODEL.value, settings, Path(OUT.value), offline=OFFLINE.value))


if __name__ == "__main__":
    from ncfair_jax.launcher import one_line_errors, parse_flags

    with one_line_errors():
        app.run(main, flags_parser=parse_flags)
