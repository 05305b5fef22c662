"""The PyTorch contestants, written for this benchmark from the description of the released research code.

Nothing else in the package imports PyTorch, and this module is imported by the workers of PyTorch contestants only.

Letters: E sentences, T tokens of a padded row, N rows of features, D hidden, V vocabulary, K classes.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from ncfair_jax.speed.padded import IGNORED, RELEASED_LENGTH, PaddedBatch, Scored, Sentence, pad

EPSILON = 2.0**-23
STYLES = ("release", "fair")


class TorchSettings(NamedTuple):
    """What both PyTorch contestants share.

    Attributes:
        folder: Hugging Face folder; "" with `sizes`.
        token_ids: the K vocabulary rows whose class means NC3 compares with their embeddings.
        weight: of NC3.
        dropout: False switches it off (to compare losses).
        sizes: fields of a config.json, of which a model with random weights is made in place of the folder's.
        device: "cpu" or "cuda".
        bfloat16: whether the model runs under autocast to it.
        compiled: backend of torch.compile; "": the model is not compiled.
    """

    folder: str
    token_ids: np.ndarray
    mask_token_id: int
    pad_token_id: int
    weight: float
    learning_rate: float
    total_steps: int
    dropout: bool = True
    sizes: dict[str, Any] | None = None
    device: str = "cpu"
    bfloat16: bool = False
    compiled: str = ""


def load(folder: str, attention: str) -> Any:
    """The masked LM in float32, in evaluation mode."""
    return AutoModelForMaskedLM.from_pretrained(
        folder, attn_implementation=attention, dtype=torch.float32, local_files_only=True
    ).eval()


def fresh(sizes: dict[str, Any], attention: str) -> Any:
    """As `load`, of these sizes and with random weights."""
    config = AutoConfig.for_model(**sizes)
    return AutoModelForMaskedLM.from_config(config, attn_implementation=attention, dtype=torch.float32).eval()


def make_step(style: str, settings: TorchSettings) -> Callable[[Sequence[Sentence]], float]:
    """One optimizer step on masked sentences; returns its loss.

    Style "release": every sentence is padded to 256 with [MASK] tokens that take part in attention, logits at every
    position, class sums over the whole vocabulary by a one-hot product, eager attention, one optimizer kernel a tensor.
    (The release also hashes all means and loops over classes in Python at each step; that is left out, in its favour.)
    Style "fair": padded to the longest sentence of the batch with a real attention mask, class sums of the K words by
    index, fused attention and optimizer; logits at every position, as the library computes them.

    Raises:
        ValueError: for another style.
    """
    update = make_update(style, settings)
    return lambda sentences: float(update(batch_of(style, sentences, settings)).item())


def make_update(style: str, settings: TorchSettings) -> Callable[[Any], torch.Tensor]:
    """`make_step` on a batch of `batch_of`; the loss stays on the device, which nothing waits for."""
    if style not in STYLES:
        raise ValueError(f"style={style!r}; choose from {', '.join(STYLES)}")
    release = style == "release"
    attention = "eager" if release else "sdpa"
    model = fresh(settings.sizes, attention) if settings.sizes else load(settings.folder, attention)
    model = model.to(settings.device).train(settings.dropout)
    forward = make_forward(model)
    if settings.compiled:
        forward = torch.compile(forward, backend=settings.compiled)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, eps=1e-8, weight_decay=0.0, fused=not release
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / settings.total_steps)
    word_ids = torch.from_numpy(np.asarray(settings.token_ids, np.int64)).to(settings.device)
    sums = VocabularySums(model.config, word_ids) if release else WordSums(model.config, word_ids)

    def update(batch: Any) -> torch.Tensor:
        with torch.autocast(settings.device, torch.bfloat16, enabled=settings.bfloat16):
            hidden, task_loss = forward(batch.tokens, batch.attention_mask, batch.labels)
        sums.add(hidden.detach().float(), batch)
        classifier = model.get_output_embeddings().weight[word_ids]
        loss = task_loss + settings.weight * nc3_loss(*sums.moments(), classifier)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss.detach()

    return update


def make_forward(model: Any) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """(tokens, mask, labels [E,T]) -> last hidden states and the loss, as the library's model computes them.

    Its parts are called here, because `output_hidden_states` breaks what torch.compile sees in two.
    """
    head = model.cls if hasattr(model, "cls") else model.lm_head

    def forward(tokens: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = model.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state
        logits = head(hidden)  # [E,T,V]
        return hidden, torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    return forward


def batch_of(style: str, sentences: Sequence[Sentence], settings: TorchSettings) -> Any:
    """Tensors on the device: "release" pads to 256 with [MASK], all of it attended to; "fair" pads to the longest sentence
    with [PAD], masked out of attention."""
    if style == "release":
        batch = pad(sentences, RELEASED_LENGTH, settings.mask_token_id, len(settings.token_ids))
        return _tensors(batch._replace(attention_mask=np.ones_like(batch.attention_mask)), settings.device)
    longest = max(len(sentence.tokens) for sentence in sentences)
    return _tensors(pad(sentences, longest, settings.pad_token_id, len(settings.token_ids)), settings.device)


def _tensors(batch: PaddedBatch, device: str = "cpu") -> Any:
    tensors: Any = (torch.from_numpy(part).to(device) for part in batch)
    return PaddedBatch(*tensors)


class VocabularySums:
    """Running sums of every vocabulary entry; the class of a feature is the id of the next input token, as released."""

    def __init__(self, config: Any, word_ids: torch.Tensor):
        self.word_ids = word_ids
        self.count = torch.zeros(config.vocab_size, device=word_ids.device)
        self.total = torch.zeros(config.vocab_size, config.hidden_size, device=word_ids.device)

    def add(self, features: torch.Tensor, batch: Any) -> None:
        """Adds features [E,T,D] by a one-hot product over the vocabulary."""
        rows = features[:, :-1].reshape(-1, features.shape[-1])  # [N,D]
        classes = batch.tokens[:, 1:].reshape(-1, 1)
        one_hot = (classes == torch.arange(len(self.count), device=classes.device)).float()  # [N,V]
        self.count += one_hot.sum(0)
        self.total += one_hot.T @ rows

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Counts [K] and sums [K,D] of the words."""
        return self.count[self.word_ids], self.total[self.word_ids]


class WordSums:
    """Running sums of the K words, by index, and of all else in one place more, so that nothing waits to learn their number."""

    def __init__(self, config: Any, word_ids: torch.Tensor):
        self.count = torch.zeros(len(word_ids) + 1, device=word_ids.device)
        self.total = torch.zeros(len(word_ids) + 1, config.hidden_size, device=word_ids.device)

    def add(self, features: torch.Tensor, batch: Any) -> None:
        """Adds the features [E,T,D], each to its slot."""
        slots = batch.slots.reshape(-1)  # [N]
        self.count.index_add_(0, slots, torch.ones(len(slots), device=slots.device))
        self.total.index_add_(0, slots, features.reshape(-1, features.shape[-1]))

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Counts [K] and sums [K,D] of the words."""
        return self.count[:-1], self.total[:-1]


def nc3_loss(count: torch.Tensor, total: torch.Tensor, classifier: torch.Tensor) -> torch.Tensor:
    """Standard deviation (ddof 1) over seen words of the cosine between centred class mean and classifier row.

    Words that were not seen have weight 0, so that nothing waits to learn how many were.
    Source: arXiv:2410.04472, with the additive epsilons of its code; see collapse.regularizer for ours.
    """
    seen = (count > 0).float()
    number = seen.sum()
    means = total / (count[:, None] + EPSILON)
    centre = (means * seen[:, None]).sum(0) / number
    cosines = (_unit(means - centre) * _unit(classifier)).sum(1)
    mean = (cosines * seen).sum() / number
    return (((cosines - mean) ** 2 * seen).sum() / (number - 1)).sqrt()


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / (vectors.norm(dim=1, keepdim=True) + EPSILON)


def make_scorer(folder: str) -> Callable[[Sequence[Scored]], list[np.ndarray]]:
    """Log-probabilities as the released scorers get them: one sequence at a time, unpadded, logits everywhere."""
    model = load(folder, "eager")

    def score(requests: Sequence[Scored]) -> list[np.ndarray]:
        with torch.no_grad():
            return [score_one(request) for request in requests]

    def score_one(request: Scored) -> np.ndarray:
        log_probs = model(input_ids=torch.from_numpy(request.tokens)[None]).logits[0].log_softmax(-1)  # [T,V]
        return log_probs[request.positions, request.targets].numpy()

    return score


def make_embedder(folder: str) -> Callable[[Sequence[Scored]], list[np.ndarray]]:
    """Sentence vectors as the released SEAT gets them: one sentence at a time, mean of all positions of the last layer.

    Without the pooler that the released code computes and drops, and without recording gradients as it does.
    """
    encoder = load(folder, "eager").base_model

    def embed(sequences: Sequence[Scored]) -> list[np.ndarray]:
        with torch.no_grad():
            return [
                encoder(input_ids=torch.from_numpy(sequence.tokens)[None]).last_hidden_state.mean(1)[0].numpy()
                for sequence in sequences
            ]

    return embed


def choose_threads(work: Callable[[], object], repeats: int = 3) -> int:
    """Sets and returns PyTorch's number of threads: one or its default, whichever does `work` sooner (best of `repeats`).

    Its default loses much on short rows where its threads wait for each other, which is not what is to be measured.
    """
    taken = {}
    for threads in {1, torch.get_num_threads()}:
        torch.set_num_threads(threads)
        work()
        began = [time.perf_counter()]
        for _ in range(repeats):
            work()
            began.append(time.perf_counter())
        taken[threads] = min(np.diff(began))
    chosen = min(taken, key=lambda threads: taken[threads])
    torch.set_num_threads(chosen)
    return chosen


def make_matmul(
    size: int, dtype: torch.dtype = torch.float32, device: str = "cpu", times: int = 1
) -> Callable[[], None]:
    """So many bare products of two square matrices, one after the other, to be timed."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def products() -> None:
        for _ in range(times):
            torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    return products
