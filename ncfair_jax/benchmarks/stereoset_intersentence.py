"""StereoSet, intersentence (Nadeem et al. 2021): which of three sentences does the model expect after a context?

The score is BERT's next-sentence probability; LM, SS and ICAT as in `stereoset`. It takes the next-sentence head and the
pooler of the pre-training, which models fine-tuned as masked LMs, so all debiased ones here, no longer have.

    examples = read_examples("dev.json", "dev", INTERSENTENCE)
    model = load_pretrained("google-bert/bert-base-cased", nsp=True)
    ask(examples, model).answered_by(forward_of(model)).metrics["gender"]["dev"]["icat"]
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from transformers import PreTrainedTokenizerBase

import ncfair_jax.benchmarks.stereoset as stereoset
from ncfair_jax.benchmarks.base import MASKED, Benchmark, Headline, Questions
from ncfair_jax.benchmarks.quality import TEXT_FLAGS, holds_control_token, holds_unknown, irregular, repeats
from ncfair_jax.benchmarks.results import Result
from ncfair_jax.benchmarks.stereoset_examples import INTERSENTENCE, OFFICIAL_FILES, Example, read_examples
from ncfair_jax.data.encoding import tokenized
from ncfair_jax.engine.requests import NEXT_SENTENCE, Answer, Request, RequestError, first_log_probs, named
from ncfair_jax.files.sources import DataError, DataFolder
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise

NEXT = 0  # the class "is the next sentence" of BERT's head
_TENSORS = {"pooler": "the pooler (pooler.dense)", "classifier": "the next-sentence head (cls.seq_relationship)"}


def load_examples(data: DataFolder) -> list[Example]:
    """The intersentence examples of a folder's official dev.json and test.json, whichever are there.

    Raises:
        DataError: if neither is there.
    """
    files = {split: file for split, file in OFFICIAL_FILES.items() if data.has(file)}
    if not files:
        names = " or ".join(file.name for file in OFFICIAL_FILES.values())
        raise DataError(
            f"intersentence examples are in StereoSet's own files only: put {names} "
            "(moinnadeem/StereoSet) into the data folder"
        )
    return [e for split, file in files.items() for e in read_examples(data.path(file), split, INTERSENTENCE)]


def check_next_sentence_head(model: Pretrained) -> None:
    """Refuses a model whose next-sentence probability would come from anything but its own weights.

    Raises:
        RequestError: saying what it lacks.
    """
    if "nsp" not in family_of(model.config).extras:
        raise RequestError(
            f"intersentence needs BERT's next-sentence head, and a {model.config.model_type} model has none"
        )
    if "nsp" not in model.params:
        raise RequestError(
            "intersentence needs a next-sentence head: the model has none, as after training as a masked LM, or it was "
            "loaded without load_pretrained(..., nsp=True)"
        )
    found = model.params["nsp"]
    missing = [text for name, text in _TENSORS.items() if set(found.get(name, ())) != {"kernel", "bias"}]
    if missing:
        raise RequestError(
            f"intersentence needs a next-sentence head and its pooler, but the weights lack {' and '.join(missing)}; "
            "take the checkpoint of the pre-training"
        )


def ask(examples: Sequence[Example], model: Pretrained) -> Questions:
    """Asks of [CLS] context [SEP] sentence [SEP], token types 0 and 1, how probable it is that the sentence is next.

    Args:
        model: loaded with nsp=True.
    Returns:
        Questions, and by them a Result:
        metrics[bias type or "overall"][all, dev or test] as that of `stereoset.ask`.
    Raises:
        RequestError: for a model without pooler and next-sentence head, or an example too long for it.
    Source: moinnadeem/StereoSet:code/eval_discriminative_models.py.
    """
    check_next_sentence_head(model)
    pairs = [(example.context, sentence) for example in examples for sentence in example.sentences]
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    encoded = tokenized(model.tokenizer, first, second, return_token_type_ids=True)
    arrays = [[np.array(ids, np.int32) for ids in encoded[part]] for part in ("input_ids", "token_type_ids")]
    names = [named(f"example {example.id}", text) for example in examples for text in example.sentences]
    requests = [
        Request(tokens, np.array([0]), np.array([NEXT]), None, types, name, ask=NEXT_SENTENCE)
        for tokens, types, name in zip(*arrays, names, strict=True)
    ]
    return Questions(requests, partial(_result, examples, requests, model.tokenizer))


def _result(
    examples: Sequence[Example],
    requests: Sequence[Request],
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Answer],
) -> Result:
    scores = np.exp(first_log_probs(answers)).reshape(-1, 3)
    table, splits = stereoset.tables(examples, scores)
    unknown = holds_unknown((request.tokens for request in requests), tokenizer)
    control = holds_control_token([" ".join((e.context, *e.sentences)) for e in examples], tokenizer)
    table |= {
        "unknown": np.reshape(unknown, (-1, 3)).any(1).astype(int).tolist(),
        "duplicate": repeats([(e.context.lower(), *(text.lower() for text in e.sentences)) for e in examples]),
        "malformed": [
            int(any(map(irregular, (e.context, *e.sentences))) or len(set(e.sentences)) < 3 or spelled)
            for e, spelled in zip(examples, control, strict=True)
        ],
    }
    metrics, intervals = summarise(stereoset.samples(table | splits))
    counts = {
        "official_count": 3 * len(examples),
        "tied": int((scores[:, 0] == scores[:, 1]).sum()),
        "rows_with_unknown_token": sum(unknown),
    }
    return Result(metrics, intervals, len(examples), counts, {}, table, splits)


def _headline(line: Headline) -> Headline:
    return line._replace(name=line.name.replace("StereoSet", "StereoSet intersentence"))


BENCHMARK = Benchmark(
    stereoset.samples,
    stereoset.COLUMNS,
    stereoset.EXAMPLE_COLUMNS,
    tuple(map(_headline, stereoset.BENCHMARK.headlines)),
    stereoset.BENCHMARK.licence,
    read=lambda data, selector: load_examples(data),
    ask={MASKED: ask},
    needs=frozenset({"nsp"}),
    flags=stereoset.flags,
    flag_columns=TEXT_FLAGS,
    version=2,
    files=lambda selector: tuple(OFFICIAL_FILES.values()),
)
