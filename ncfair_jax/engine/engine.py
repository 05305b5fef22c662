"""A model as a function from requests to answers.

Requests that ask for the same type of thing are answered together. Equal sequences are run once, several to a row, by one
program per row length. Log-probabilities take a second program, which projects the scored columns of all rows onto the
vocabulary: each column once, whatever the number of its targets; the last layer is computed at the scored columns only.
A `Wrap` makes a group of each request; columns that belong together are projected together and combined there.

Letters: R rows of a batch, T tokens a row, N scored columns of all rows, G requests of a group, C columns or groups of them
in a batch, K targets a column, V vocabulary, D hidden.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ncfair_jax.engine.batching import batch_size, batches, buckets, default_batch_tokens, power_of_two, regroup
from ncfair_jax.engine.forward import HostBatch, evaluation_config, projected, reduced
from ncfair_jax.engine.packing import Columns, Packed, columns_of, pack, sizes
from ncfair_jax.engine.progress import bar
from ncfair_jax.engine.reductions import AtColumns, ClassLogits, SegmentVectors
from ncfair_jax.engine.requests import (
    ATTENTION,
    CLASS_LOGITS,
    FIRST_VECTOR,
    LOG_PROBS,
    MEAN_VECTOR,
    NEXT_SENTENCE,
    Answer,
    Distinct,
    Forward,
    Request,
    RequestError,
    Slots,
    Wrap,
    check,
    merge,
    name_of,
)
from ncfair_jax.finite import require_finite
from ncfair_jax.models.base import ModelConfig, Params
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.sharding import replicate

CPU_LOGITS = 2**22  # at most so many exist at a time: 16 MiB stay in the cache
ACCELERATOR_LOGITS = 2**25  # per device
HEAD_OF = {LOG_PROBS: "mlm", ATTENTION: "mlm", NEXT_SENTENCE: "nsp"}
VERBS = {
    LOG_PROBS: "log-probabilities",
    ATTENTION: "log-probabilities and attention",
    NEXT_SENTENCE: "next sentences",
    MEAN_VECTOR: "sentence vectors",
    FIRST_VECTOR: "sentence vectors",
    CLASS_LOGITS: "class logits",
}
WHAT = {
    MEAN_VECTOR: "the vector of {}",
    FIRST_VECTOR: "the vector of {}",
    CLASS_LOGITS: "the classifier's output for {}",
}


class ClassHead(NamedTuple):
    """A classifier on top of the model.

    Attributes:
        params: as `models.heads.class_outputs` takes them.
        row_tokens: T of all its rows, so that all calls share one program; no sequence may be longer.
    """

    params: Params
    row_tokens: int


class Engine(NamedTuple):
    """A model on its devices, and how it is run."""

    config: ModelConfig
    params: Params
    head: ClassHead | None
    mesh: Mesh | None
    batch_tokens: int | None
    wrap: Wrap | None

    @property
    def devices(self) -> int:
        return 1 if self.mesh is None else self.mesh.size


class RequestType(NamedTuple):
    """What is asked, and G: requests of one type are answered together."""

    ask: str
    group: int


class Job(NamedTuple):
    """Some groups of sequences, packed into rows of one length; `members` are their numbers among those of the same type."""

    request_type: RequestType
    members: np.ndarray
    distinct: list[Distinct]
    packed: Packed
    batch_rows: int


class Scored(NamedTuple):
    """Of the columns of one group of sequences: log-probability and top-1 flag of their targets, f32[P,K,2]; attention f32[P]
    or []."""

    values: np.ndarray
    attention: np.ndarray


NOTHING = Scored(np.zeros((0, 1, 2), np.float32), np.zeros(0, np.float32))


def forward_of(
    model: Pretrained,
    *,
    head: ClassHead | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
    batch_tokens: int | None = None,
    wrap: Wrap | None = None,
) -> Forward:
    """The model as a function from requests to answers, in the order of the requests.

    It computes in float32 at the highest matmul precision, whatever precision the model trains in.

    Args:
        head: answers CLASS_LOGITS.
        mesh: shard the rows over all its devices; parameters are replicated unless they lie on it already. With several
            processes every process calls with the same requests and gets all answers.
        progress: show a progress bar on stderr.
        batch_tokens: R·T per device; bounds the memory. None: a default for the backend.
        wrap: answers in the model's stead; it knows log-probabilities, with attention or without, and refuses all else.
    Returns:
        A function that raises RequestError for a sequence that is empty or longer than the model takes, an id beyond its
        vocabulary, a position outside the sequence or not attended to, lists of unequal length, or a kind of answer that the
        model has no head for; and NonFiniteError if an answer is not finite. Both name the request.
    """
    config = evaluation_config(model.config)
    params, own = replicate((model.params, head.params if head else {}), mesh)
    engine = Engine(config, params, head and head._replace(params=own), mesh, batch_tokens, wrap)

    def forward(requests: Sequence[Request]) -> list[Answer]:
        groups = [[request] if wrap is None else wrap.expand(request) for request in requests]
        check([request for group in groups for request in group], config, model.tokenizer)
        answers = _answer(engine, groups, progress)
        _require_finite(requests, answers, model.tokenizer)
        return answers

    return forward


def _answer(engine: Engine, groups: Sequence[Sequence[Request]], progress: bool) -> list[Answer]:
    """The answers, finite or not: all jobs are planned first, then run under one progress bar."""
    types = [RequestType(group[0].ask, len(group)) for group in groups]
    numbers = {asked: [i for i, other in enumerate(types) if other == asked] for asked in dict.fromkeys(types)}
    merged = {asked: merge([groups[i] for i in chosen]) for asked, chosen in numbers.items()}
    jobs = [job for asked, (distinct, _) in merged.items() for job in plan(engine, asked, distinct)]
    found: dict[RequestType, list[Any]] = {asked: [NOTHING] * len(distinct) for asked, (distinct, _) in merged.items()}
    with bar(sum(-(-len(job.packed.rows["tokens"]) // job.batch_rows) for job in jobs), progress) as step:
        for job in jobs:
            run = _score if job.request_type.ask in HEAD_OF else _read_segments
            for member, result in zip(job.members, run(engine, job, step), strict=True):
                found[job.request_type][member] = result
    answers = [Answer()] * len(groups)
    for asked, chosen in numbers.items():
        for i, slots in zip(chosen, merged[asked][1], strict=True):
            answers[i] = _answer_of(asked.ask, found[asked][slots.distinct], slots)
    return answers


def _answer_of(ask: str, found: Any, slots: Slots) -> Answer:
    """The answer to a request, from what was found of its group."""
    if ask not in HEAD_OF:
        return Answer(vector=found)
    values = found.values[slots.columns, slots.targets]
    attention = found.attention[slots.columns] if ask == ATTENTION else None
    return Answer(values[:, 0], values[:, 1] > 0.5, attention)


def _require_finite(requests: Sequence[Request], answers: Sequence[Answer], tokenizer: Any) -> None:
    for what, field in (
        ("a log-probability of {}", "log_probs"),
        ("the attention paid to a token of {}", "attention"),
        ("", "vector"),
    ):
        owners = [i for i, answer in enumerate(answers) if getattr(answer, field) is not None]
        if not owners:
            continue
        values = [getattr(answers[i], field) for i in owners]
        owner = np.repeat(owners, [1 if field == "vector" else len(value) for value in values])  # request of every row
        rows = np.stack(values) if field == "vector" else np.concatenate(values)

        def name(row: int, owner: np.ndarray = owner, what: str = what) -> str:
            request = requests[owner[row]]
            return (what or WHAT[request.ask]).format(name_of(request, tokenizer))

        require_finite(rows, name)


def plan(engine: Engine, asked: RequestType, distinct: Sequence[Distinct]) -> Iterator[Job]:
    """Sequences that ask for something, in rows of few lengths; a group goes where its longest sequence does.

    Raises:
        RequestError: if the model has no head for it, or a wrap no answer.
    """
    ask, head = asked.ask, engine.head
    if (ask == CLASS_LOGITS and head is None) or (ask == NEXT_SENTENCE and "nsp" not in engine.params):
        raise RequestError(f"the model has no head for {VERBS[ask]}; load one, or leave these requests out")
    if engine.wrap is not None and ask not in (LOG_PROBS, ATTENTION):
        raise RequestError(f"{engine.wrap.name} is not defined for {VERBS[ask]}; leave these requests out")
    asking = np.array([i for i, one in enumerate(distinct) if one.columns or ask not in HEAD_OF], np.int64)
    longest = sizes([distinct[i] for i in asking])[0].reshape(-1, asked.group).max(1)
    lists = buckets(longest, engine.config.hidden_size)
    if ask == CLASS_LOGITS and head is not None and len(asking):
        lists = iter([(head.row_tokens, np.arange(len(asking)))])
    for row_tokens, chosen in lists:
        bucket = [distinct[i] for i in asking[chosen]]
        packed = pack(bucket, row_tokens)
        most = (engine.batch_tokens or default_batch_tokens()) // row_tokens
        # A classifier is asked again and again, about sets of any size: one shape for all.
        size = max(1, most) if ask == CLASS_LOGITS else batch_size(len(packed.rows["tokens"]), most, engine.devices)
        yield Job(asked, asking[chosen], bucket, packed, engine.devices * size)


def _steps(job: Job, rows: HostBatch, step: Callable[[str], None]) -> Iterator[HostBatch]:
    """Batches of the rows; each is announced."""
    for batch in batches(rows, job.batch_rows):
        step(f"{VERBS[job.request_type.ask]}, rows of {batch['tokens'].shape[1]} tokens")
        yield batch


def _read_segments(engine: Engine, job: Job, step: Callable[[str], None]) -> np.ndarray:
    """A vector of every sequence of a job, f32[E,D], or its class logits."""
    packed, rows, own = job.packed, dict(job.packed.rows), None
    reduction: SegmentVectors | ClassLogits
    if job.request_type.ask == CLASS_LOGITS:
        assert engine.head is not None  # `plan` refuses the others
        num_rows, row_tokens = rows["tokens"].shape
        rows["first"] = np.zeros((num_rows, row_tokens // 2), np.int32)  # an example has two special tokens at least
        rows["first"][packed.row, packed.segment] = packed.offset
        reduction, own = ClassLogits(), engine.head.params
    else:
        segments = power_of_two(int(packed.segment.max()) + 1)  # one number for all batches, so one compilation
        reduction = SegmentVectors(job.request_type.ask == FIRST_VECTOR, segments)
    found = reduced(engine.config, reduction, engine.mesh, engine.params, own, _steps(job, rows, step))
    return np.concatenate(list(found))[packed.row, packed.segment]


def _score(engine: Engine, job: Job, step: Callable[[str], None]) -> list[Scored]:
    """What every group of sequences of a job asks for, batch by batch."""
    columns, attention = columns_of(job.packed, job.distinct), job.request_type.ask == ATTENTION
    all_columns = reads_everything(job.packed, columns, attention)
    rows = job.packed.rows if all_columns else job.packed.rows | {"read": columns.read}
    paid: list[np.ndarray] = []

    def scored_columns() -> Iterator[np.ndarray]:
        read = reduced(engine.config, AtColumns(attention), engine.mesh, engine.params, None, _steps(job, rows, step))
        for number, (hidden, received) in enumerate(read):
            start = number * job.batch_rows
            here = slice(*np.searchsorted(columns.row, [start, start + job.batch_rows]))
            row, column = columns.row[here] - start, columns.column[here]
            if received is not None:
                paid.append(received[row, column])
            yield hidden[row, column if all_columns else columns.rank[here]]  # [·,D]

    combine, states = None, scored_columns()
    if engine.wrap is not None:  # columns of a group come from rows far apart
        combine, states = engine.wrap.combine, iter([np.concatenate(list(states))[columns.groups]])  # [·,G,D]
    vocab_size, count = engine.config.vocab_size * job.request_type.group, len(columns.targets)
    chunk = engine.devices * head_columns(count, vocab_size, engine.devices)
    pairs = zip(regroup(states, chunk), regroup([columns.targets], chunk), strict=True)
    inputs = ({"hidden": hidden, "targets": targets} for hidden, targets in pairs)
    head = HEAD_OF[job.request_type.ask]
    values = np.concatenate(  # [N/G and padding,K,2]
        list(projected(engine.config, head, engine.mesh, combine, engine.params, inputs))
    )
    received = np.concatenate(paid)[columns.groups[:, 0]] if attention else np.zeros(count, np.float32)
    ends = columns.first + [len(one.columns) for one in job.distinct]
    return [Scored(values[a:b], received[a:b]) for a, b in zip(columns.first, ends, strict=True)]


def reads_everything(packed: Packed, columns: Columns, attention: bool) -> bool:
    """Whether the last layer is computed at all T columns: where attention is read, and where nearly all are scored."""
    return attention or columns.read.shape[1] >= packed.rows["tokens"].shape[1]


def head_columns(columns: int, vocab_size: int, devices: int = 1) -> int:
    """C per device: scored columns that are projected onto the vocabulary at a time."""
    logits = CPU_LOGITS if jax.default_backend() == "cpu" else ACCELERATOR_LOGITS
    return batch_size(columns, min(logits // vocab_size, 1024), devices)
