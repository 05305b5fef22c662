"""Judge a masked language model: `python launch/evaluate.py --model=FOLDER_OR_NAME --data=DIR --out=DIR`.

Writes OUT/NAME.json and OUT/NAME.csv for each benchmark and prints the headline figures. Exit status 1 if one failed. Several
processes share the work, if all are started with --coordinator (docs/scale.md), and process 0 writes and prints.
"""

from absl import app, flags

from ncfair_jax import process_flags

MODEL = flags.DEFINE_string("model", None, "Hugging Face folder or Hub name.", required=True)
HEAD = flags.DEFINE_string("head", "", "If the folder has no masked-LM head: 'identity' or 'seeded:N'.")
BENCHMARKS = flags.DEFINE_list(
    "benchmarks",
    ["crows_pairs", "stereoset", "bec_pro", "masked_lm"],
    "Names with commas between; 'crows_pairs:gender' scores one bias type.",
)
DATA = flags.DEFINE_string("data", "", "Folder with crows_pairs/, stereoset/, …; '' = public sources, pinned by hash.")
OUT = flags.DEFINE_string("out", None, "Folder of the results.", required=True)
OFFLINE = flags.DEFINE_bool("offline", False, "Fetch nothing; say what would have been fetched.")
CACHE = flags.DEFINE_string("compilation_cache", "~/.cache/ncfair_jax/xla", "Folder of compiled programs; '' = none.")


def main(argv: list[str]) -> None:
    import jax

    from ncfair_jax import launcher
    from ncfair_jax.benchmarks.registry import BENCHMARKS as KNOWN
    from ncfair_jax.benchmarks.registry import EvaluationError, content_warnings, evaluate, headline, parse
    from ncfair_jax.files.bucket import path_of
    from ncfair_jax.models.hf import load_pretrained
    from ncfair_jax.processes import together
    from ncfair_jax.report.comparisons import headline_table
    from ncfair_jax.report.render import table_text

    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
    nsp = any("nsp" in KNOWN[name].needs for name, _ in parse(BENCHMARKS.value))
    launcher.prepare_jax(CACHE.value)
    with together(*process_flags.asked()):
        first = jax.process_index() == 0
        for warning in content_warnings(BENCHMARKS.value) if first else ():
            print(f"Content warning: {warning}")
        pretrained = load_pretrained(MODEL.value, head=HEAD.value, nsp=nsp, offline=OFFLINE.value)
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        names = {"model_name": MODEL.value, "mesh": mesh, "offline": OFFLINE.value, "progress": True}
        try:
            results, failed = evaluate(pretrained, BENCHMARKS.value, DATA.value, path_of(OUT.value), **names), ""
        except EvaluationError as error:
            results, failed = error.results, str(error)
        if results and first:
            print(table_text(headline_table(headline(results))))
    if failed:
        raise ValueError(failed)


if __name__ == "__main__":
    from ncfair_jax.stopping import told

    with told():  # from here on: the imports take seconds
        from ncfair_jax.launcher import one_line_errors, parse_flags

        with one_line_errors():
            app.run(main, flags_parser=parse_flags)
