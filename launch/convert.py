"""Convert weights: `python launch/convert.py --to=orbax --model=FOLDER_OR_NAME --out=DIR`, or back with `--to=hf`.

`--to=orbax` writes the parameters of a model as an Orbax folder. `--to=hf` takes config and tokenizer from --model and the
parameters from --params (such a folder, or runs/X/checkpoints/300/params of a training run) and writes a Hugging Face folder.
"""

from absl import app, flags

TO = flags.DEFINE_enum("to", None, ["orbax", "hf"], "What to write.", required=True)
MODEL = flags.DEFINE_string("model", None, "Hugging Face folder or Hub name.", required=True)
HEAD = flags.DEFINE_string("head", "", "If --model has no masked-LM head: 'identity' or 'seeded:N'.")
PARAMS = flags.DEFINE_string("params", "", "Orbax folder of parameters; with --to=hf only.")
OUT = flags.DEFINE_string("out", None, "Folder to write.", required=True)
OFFLINE = flags.DEFINE_bool("offline", False, "Fetch nothing; say what would have been fetched.")


def main(argv: list[str]) -> None:
    from ncfair_jax.checkpoint import CheckpointError, restore_params, save_params
    from ncfair_jax.files.bucket import path_of
    from ncfair_jax.models.hf import load_pretrained, save_pretrained

    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
    if (TO.value == "hf") != bool(PARAMS.value):
        given = "came with" if PARAMS.value else "came without"
        raise ValueError(f"--to={TO.value} {given} --params; --to=hf needs the Orbax folder, --to=orbax takes none")
    out, params = path_of(OUT.value).expanduser(), path_of(PARAMS.value).expanduser()
    if TO.value == "orbax" and out.exists():
        raise ValueError(f"--out={out} exists; choose another name or remove it")
    if not params.is_dir():
        raise ValueError(f"--params={params} is not a folder; give the params folder of a checkpoint")
    pretrained = load_pretrained(MODEL.value, head=HEAD.value, offline=OFFLINE.value)
    if TO.value == "orbax":
        save_params(out, pretrained.params)
    else:
        try:
            restored = restore_params(params, pretrained.params)
        except (OSError, ValueError, KeyError) as error:  # whatever orbax raises, the user needs both names
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(":")
            raise CheckpointError(
                f"--params={params} does not hold the parameters of {MODEL.value} ({reason})"
            ) from error
        card = f"# {out.name}\n\nParameters of `{params}`, config and tokenizer of `{MODEL.value}`.\n"
        save_pretrained(out, pretrained._replace(params=restored), card=card)
    print(f"wrote {out}")


if __name__ == "__main__":
    from ncfair_jax.stopping import told

    with told():  # from here on: the imports take seconds
        from ncfair_jax.launcher import one_line_errors, parse_flags

        with one_line_errors():
            app.run(main, flags_parser=parse_flags)
