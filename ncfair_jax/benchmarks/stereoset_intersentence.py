"""StereoSet, intersentence (Nadeem et al. 2021): which of three sentences does the model expect after a context?

The score is BERT's next-sentence probability; LM, SS and ICAT as in `stereoset`. It takes the next-sentence head and the
pooler of the pre-training, which models fine-tuned as masked LMs, so all debiased ones here, no longer have.

    examples = read_examples("dev.json", "dev", INTERSENTENCE)
    evaluate(load_pretrained("google-bert/bert-base-cased", nsp=True), examples).metrics["gender"]["dev"]["icat"]
"""

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from ncfair_jax.benchmarks import stereoset
from ncfair_jax.benchmarks.benchmark import Benchmark, Headline
from ncfair_jax.benchmarks.quality import TEXT_FLAGS, holds_control_token, holds_unknown, irregular, repeats
from ncfair_jax.benchmarks.requests import Request, ScorerError, named
from ncfair_jax.benchmarks.results import Result
from ncfair_jax.benchmarks.scorer import score_with_top1
from ncfair_jax.benchmarks.stereoset import INTERSENTENCE, OFFICIAL_FILES, Example, read_examples
from ncfair_jax.data.encoding import tokenized
from ncfair_jax.files.sources import DataError, DataFolder
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise

NAME = "stereoset_intersentence"  # in the registry
NEXT = 0  # the class "is the next sentence" of BERT's head
_TENSORS = {"pooler": "the pooler (pooler.dense)", "classifier": "the next-sentence head (cls.seq_relationship)"}


def load_examples(data: DataFolder) -> list[Example]:
    """The intersentence examples of a folder's official dev.json and test.json, whichever are there.

    Raises:
        DataError: if neither is there.
    """
    files = {split: name for split, name in OFFICIAL_FILES.items() if data.has(name)}
    if data.folder is None or not files:
        raise DataError(
            f"intersentence examples are in StereoSet's own files only: put {' or '.join(OFFICIAL_FILES.values())} "
            "(moinnadeem/StereoSet) into the data folder"
        )
    return [e for split, name in files.items() for e in read_examples(data.folder / name, split, INTERSENTENCE)]


def check_next_sentence_head(pretrained: Pretrained) -> None:
    """Refuses a model whose next-sentence probability would come from anything but its own weights.

    Raises:
        ScorerError: saying what it lacks.
    """
    if pretrained.config.model_type != "bert":
        raise ScorerError(
            f"intersentence needs BERT's next-sentence head, and a {pretrained.config.model_type} model has none"
        )
    if "nsp" not in pretrained.params:
        raise ScorerError(
            "intersentence needs a next-sentence head: the model has none, as after training as a masked LM, or it was "
            "loaded without load_pretrained(..., nsp=True)"
        )
    found = pretrained.params["nsp"]
    missing = [text for name, text in _TENSORS.items() if set(found.get(name, ())) != {"kernel", "bias"}]
    if missing:
        raise ScorerError(
            f"intersentence needs a next-sentence head and its pooler, but the weights lack {' and '.join(missing)}; "
            "take the checkpoint of the pre-training"
        )


def evaluate(
    pretrained: Pretrained, examples: Sequence[Example], *, mesh: Mesh | None = None, progress: bool = False
) -> Result:
    """Scores [CLS] context [SEP] sentence [SEP], token types 0 and 1, by the probability that the sentence is next.

    Args:
        pretrained: loaded with nsp=True.
    Returns:
        metrics[bias type or "overall"][all, dev or test] as of `stereoset.evaluate`.
    Raises:
        ScorerError: for a model without pooler and next-sentence head, or an example too long for it.
    Source: moinnadeem/StereoSet:code/eval_discriminative_models.py.
    """
    check_next_sentence_head(pretrained)
    pairs = [(example.context, sentence) for example in examples for sentence in example.sentences]
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    encoded = tokenized(pretrained.tokenizer, first, second, return_token_type_ids=True)
    names = [named(f"example {example.id}", text) for example in examples for text in example.sentences]
    requests = [
        Request(np.array(ids, np.int32), np.array([0]), np.array([NEXT]), None, np.array(types, np.int32), name)
        for ids, types, name in zip(encoded["input_ids"], encoded["token_type_ids"], names, strict=True)
    ]
    log_probs = score_with_top1(pretrained, requests, mesh=mesh, progress=progress, head="nsp").log_probs
    scores = np.exp(np.array(log_probs, np.float64)).reshape(-1, 3)
    table, splits = stereoset.tables(examples, scores)
    unknown = holds_unknown((request.tokens for request in requests), pretrained.tokenizer)
    control = holds_control_token([" ".join((e.context, *e.sentences)) for e in examples], pretrained.tokenizer)
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


def run(pretrained: Pretrained, data: DataFolder, selector: str, mesh: Mesh | None, progress: bool) -> Result:
    """`evaluate` on the examples of a data folder."""
    check_next_sentence_head(pretrained)
    return evaluate(pretrained, load_examples(data), mesh=mesh, progress=progress)


def _headline(line: Headline) -> Headline:
    return line._replace(name=line.name.replace("StereoSet", "StereoSet intersentence"))


BENCHMARK = Benchmark(
    run,
    stereoset.samples,
    stereoset.COLUMNS,
    stereoset.EXAMPLE_COLUMNS,
    tuple(map(_headline, stereoset.BENCHMARK.headlines)),
    stereoset.BENCHMARK.licence,
    flags=stereoset.flags,
    flag_columns=TEXT_FLAGS,
    version=2,
    files=lambda selector: tuple(OFFICIAL_FILES.values()),
)
