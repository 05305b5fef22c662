"""Report of runs: `python launch/report.py RUN [RUN …] --out=report.html [--markdown=report.md] [--latex=tables.tex]`.

A RUN is a workdir of launch/train.py or launch/sweep.py (arms × seeds), a result folder of launch/evaluate.py or a folder of
launch/measure.py. Several stand side by side, and each is compared with the first. Without a flag: RUN/report.html.

`python launch/report.py --table=FILE` prints the table of a sweep again, from its figures.json.
"""

from absl import app, flags

OUT = flags.DEFINE_string("out", "", "HTML page to write.")
MARKDOWN = flags.DEFINE_string("markdown", "", "Markdown file to write.")
LATEX = flags.DEFINE_string("latex", "", "LaTeX file of the tables to write; needs the package booktabs.")
TABLE = flags.DEFINE_string("table", "", "figures.json of a sweep: print its table; nothing else is done.")


def main(argv: list[str]) -> None:
    from ncfair_jax.files.atomic import write_text
    from ncfair_jax.files.bucket import BucketPath, path_of
    from ncfair_jax.report.html import page
    from ncfair_jax.report.latex import latex
    from ncfair_jax.report.markdown import markdown
    from ncfair_jax.report.summary import summarise_folders

    if TABLE.value:
        from ncfair_jax.report.arms import arms_text, read_figures

        print(arms_text(read_figures(TABLE.value)))
        return
    folders = [path_of(name) for name in argv[1:]]
    if not folders:
        raise app.UsageError("name at least one folder of a run")
    wanted = [(OUT.value, page), (MARKDOWN.value, markdown), (LATEX.value, latex)]
    for path, _ in wanted:
        file = path_of(path)
        if path and not isinstance(file, BucketPath) and not file.resolve().parent.is_dir():
            raise ValueError(f"{file.parent} is not a folder; make it, or write {file.name} elsewhere")
    if not any(path for path, _ in wanted):
        wanted = [(str(folders[0] / "report.html"), page)]
    summary = summarise_folders(folders)
    for path, render in wanted:
        if path:
            write_text(path_of(path), render(summary))
            print(path)


if __name__ == "__main__":
    from ncfair_jax.stopping import told

    with told():  # from here on: the imports take seconds
        from ncfair_jax.launcher import one_line_errors, parse_flags

        with one_line_errors():
            app.run(main, flags_parser=parse_flags)
