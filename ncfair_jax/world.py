"""A generated world: everything that a run needs, with a planted bias, and nothing downloaded.

A corpus, an untrained model whose vocabulary is the corpus's, held-out text, and benchmark files in the public formats made
from the same grammar (`data.generated`).
"""

from pathlib import Path

import jax
import numpy as np
from transformers import BertTokenizer

from ncfair_jax.data.generated import draw_new, truth, vocabulary
from ncfair_jax.data.generated_benchmarks import utility_lines, write_benchmarks, write_json, write_lines
from ncfair_jax.files import digests
from ncfair_jax.files.atomic import is_there, written
from ncfair_jax.files.bucket import path_of
from ncfair_jax.models.bert import BertConfig
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import Pretrained, save_pretrained

HELDOUT_SENTENCES = 1000
TRUTH_FILE = "truth.json"


def write_world(folder: str | Path, *, sentences: int, bias: float, seed: int) -> None:
    """Writes the world that follows from the arguments alone; the folder appears only when it is complete.

    Layout: model/ (Hugging Face folder, random weights), corpus.txt and heldout.txt (a sentence a line), data/ with
    crows_pairs/, stereoset/, bec_pro/ and wikitext2/ in the public formats, truth.json (planted and counted association
    of every occupation).

    Args:
        sentences: lines of the corpus.
        bias: probability of the stereotypical gender, .5 = none.
        seed: of the text and of the weights.
    Raises:
        ValueError: sentences < 1, a bias outside [0, 1] or a negative seed.
        FileExistsError: if the folder is there.
    """
    if sentences < 1 or not 0 <= bias <= 1 or seed < 0:
        raise ValueError(f"sentences={sentences}, bias={bias}, seed={seed}; expected at least 1, 0 to 1, at least 0")
    folder = path_of(folder).absolute()
    if is_there(folder):
        raise FileExistsError(f"{folder} exists; remove it or name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.Generator(np.random.Philox(key=seed))
    with written(folder) as new:
        used = write_benchmarks(new / "data", rng)
        heldout = draw_new(rng, bias, HELDOUT_SENTENCES, used)
        used.update(sentence.male for sentence in heldout)
        corpus = draw_new(rng, bias, sentences, used)
        write_lines(new / "heldout.txt", (sentence.text for sentence in heldout))
        write_lines(new / "corpus.txt", (sentence.text for sentence in corpus))
        write_lines(new / "data" / "wikitext2" / "test.txt", utility_lines(heldout, corpus))
        write_json(new / TRUTH_FILE, {"sentences": sentences, "bias": bias, "seed": seed} | truth(corpus, bias))
        _write_model(new / "model", seed)
        digests.record(new, digests.files_of(new))


def _write_model(folder: Path, seed: int) -> None:
    tokens = vocabulary()
    config = BertConfig(
        model_type="bert",
        vocab_size=len(tokens),
        hidden_size=96,
        num_layers=2,
        num_heads=4,
        intermediate_size=192,
        max_positions=64,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=0,
        initializer_range=0.05,  # 0.02 · sqrt(768 / 96): BERT's relative size of updates to the residual stream
    )
    tokenizer = BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}, do_lower_case=True)
    tokenizer.model_max_length = config.max_tokens
    card = "Untrained model of a generated world; its vocabulary is the words of that world."
    save_pretrained(
        folder, Pretrained(config, family_of(config).init(config, jax.random.key(seed)), tokenizer), card=card
    )
    write_lines(folder / "vocab.txt", tokens)
