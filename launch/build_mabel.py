"""Make MABEL's pairs: `python launch/build_mabel.py --out=runs/entailment_data.csv [--sources=A,B] [--filter=any]`.

From the training parts of SNLI and MNLI (fetched from the Hugging Face Hub through `datasets`, some 350 MB), or from files
.jsonl or .csv of their form, it keeps the entailed pairs, adds their gender-swapped copies and drops what did not change.
"""

import os
import sys

from absl import app, flags

DEFAULT_SOURCES = ["stanfordnlp/snli", "nyu-mll/multi_nli"]
SOURCES = flags.DEFINE_list("sources", DEFAULT_SOURCES, "Hub names, folders, or files .jsonl or .csv, in this order.")
OUT = flags.DEFINE_string("out", "runs/entailment_data.csv", "CSV file to write.")
LEXICON = flags.DEFINE_string("lexicon", "gender", "Whose pairs the swap uses: a shipped name or a JSON file.")
FILTER = flags.DEFINE_enum(
    "filter", "any", ["any", "both", "none"], "Keep pairs of which any or both sentences changed; none: keep all."
)
POSSESSIVES = flags.DEFINE_enum(
    "possessives",
    "context",
    ["context", "next_word"],
    "How 'her' and 'his' are read; next_word: MABEL's documented rule.",
)
OFFLINE = flags.DEFINE_bool("offline", False, "Fetch nothing; say what would have been fetched.")


def main(argv: list[str]) -> None:
    from ncfair_jax.lexicons.lexicon import load_lexicon
    from ncfair_jax.methods.mabel.pairs import build_pairs

    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
    if not SOURCES.value:
        raise ValueError("--sources is empty; name a Hub data set or a file")
    count = build_pairs(SOURCES.value, OUT.value, load_lexicon(LEXICON.value), FILTER.value, POSSESSIVES.value)
    print(f"wrote {count} pairs to {OUT.value}")


if __name__ == "__main__":
    if any(arg.lstrip("-") in ("offline", "offline=true") for arg in sys.argv[1:]):
        os.environ["HF_HUB_OFFLINE"] = "1"  # must be known before the Hub's client is loaded
    from ncfair_jax.stopping import told

    with told():  # from here on: the imports take seconds
        from ncfair_jax.launcher import one_line_errors, parse_flags

        with one_line_errors():
            app.run(main, flags_parser=parse_flags)
