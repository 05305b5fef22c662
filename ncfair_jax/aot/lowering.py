"""The real train step, lowered for devices that are not here: its state and batch are shapes with shardings, no weights."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.stages import Lowered
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ncfair_jax.config import ConfigError, RunConfig
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.lexicons.classes import FairnessClasses
from ncfair_jax.lexicons.synthetic import synthetic_classes
from ncfair_jax.methods.base import Objective
from ncfair_jax.methods.mlm import MLM, MlmRun
from ncfair_jax.methods.nc3 import with_nc3
from ncfair_jax.models.base import ModelConfig
from ncfair_jax.models.dropout import GENERATORS
from ncfair_jax.models.families import family_of
from ncfair_jax.models.folders import find_folder
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.models.hub_config import read_config
from ncfair_jax.models.presets import preset_model
from ncfair_jax.optimizer import make_optimizer
from ncfair_jax.prepare import make_pipeline, refuse_too_long, with_runtime_choices
from ncfair_jax.registry import method_of
from ncfair_jax.sharding import BATCH_AXES, batch_shards, is_whole, laid_out
from ncfair_jax.state import TrainState, init_state, jitted_train_step

TOTAL_STEPS = 1000  # of the learning rate's schedule where the config leaves it to the corpus; it changes no shape
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SENTENCE = 8  # tokens of the sentence that shows the arrays of a batch
ROWS_PER_DEVICE = 64  # where neither the config nor the command says how many


class Step(NamedTuple):
    """What is compiled.

    Attributes:
        objective: with the regulariser, if the config has it.
        classes: None where it has not.
        batch: shapes [A, R/A, …] and scalars, with shardings.
    """

    config: MlmRun
    model: ModelConfig
    objective: Objective
    classes: FairnessClasses | None
    mesh: Mesh
    batch: dict[str, jax.ShapeDtypeStruct]


def model_of(config: RunConfig, folder: str, preset: str, mesh: Mesh) -> Pretrained:
    """The model's config alone, from a folder's config.json or from a preset, as the run would have it.

    Raises:
        ConfigError: for neither or both, or sentences that are longer than the model's positions.
        ValueError: for an unknown preset.
        ModelFolderError: for a folder without a config.json that can be run.
    """
    if bool(folder) == bool(preset):
        raise ConfigError("give --model=FOLDER with a config.json, or --preset=bert-base; one of the two")
    source = config.model
    if folder:
        model = read_config(Path(find_folder(folder)), source.activation_dtype, source.remat).model
    else:
        named = "xla" if source.attention == "auto" else source.attention  # the devices choose below
        model = dataclasses.replace(preset_model(preset, source.activation_dtype, named), remat=source.remat)
    config = dataclasses.replace(config, model=dataclasses.replace(source, path=folder or preset))
    without_weights = Pretrained(model, {}, tokenizer())
    refuse_too_long(config, without_weights)
    return without_weights._replace(config=with_runtime_choices(config, model, mesh))


def tokenizer() -> PreTrainedTokenizerBase:
    """One that knows special tokens only: their ids do not change what is compiled."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(SPECIAL)}, unk_token="[UNK]"))
    named = {f"{word.strip('[]').lower()}_token": word for word in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=words, **named)


def rows_of(config: MlmRun, rows_per_device: int | None, mesh: Mesh) -> int:
    """Rows of an update, on all devices together: config.train.batch_rows, or so many for each share of the batch.

    Raises:
        ConfigError: if both are given and differ, or if the rows of a device do not divide into the config's micro-batches.
    """
    of_config, shares, parts = config.train.batch_rows, batch_shards(mesh), config.train.accumulation
    if of_config and rows_per_device is None:
        return of_config
    each = rows_per_device or ROWS_PER_DEVICE
    if of_config not in (0, each * shares):
        raise ConfigError(
            f"--rows_per_device={each} makes {each * shares} rows of the {shares} shares of a batch, and "
            f"config.train.batch_rows={of_config}; leave one of the two out"
        )
    if each % parts:
        raise ConfigError(
            f"--rows_per_device={each} does not divide into config.train.accumulation={parts} micro-batches"
        )
    return each * shares


def make_step(config: RunConfig, folder: str, preset: str, rows_per_device: int | None, mesh: Mesh) -> Step:
    """Objective, classes and abstract batch of a config.

    Args:
        rows_per_device: of each share of the batch; None: `ROWS_PER_DEVICE`, or as many as config.train.batch_rows says.

    Raises:
        ConfigError: for a method whose batches this cannot make, for rows that the mesh does not divide, and as `model_of`
            and `rows_of`.
    """
    if method_of(config) is not MLM or not isinstance(config, MlmRun):
        raise ConfigError(
            f"config.objective.name={config.objective.name!r}: its batches come from its data; only the step of 'mlm' is "
            "compiled without any"
        )
    model = model_of(config, folder, preset, mesh)
    classes = synthetic_classes(model.config.vocab_size) if config.nc3.weight else None
    sentence = np.full(SENTENCE, model.config.vocab_size - 1, np.int32)
    examples = Examples([sentence] * max(1, config.train.groups))
    objective = MLM.objective(config, model, examples)  # type: ignore[misc]
    if classes is not None:
        objective = with_nc3(objective, config.nc3, classes, model.config, TOTAL_STEPS)
    rows = rows_of(config, rows_per_device, mesh) // config.train.accumulation
    shown = make_pipeline(config, model, examples, classes, mesh).batch(0)
    batch = {name: abstract_rows(name, value, rows, mesh) for name, value in shown.items()}
    return Step(config, model.config, objective, classes, mesh, batch)


def abstract_rows(name: str, value: np.ndarray, rows: int, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """The shape of an array of a batch with so many rows a micro-batch, lying on the mesh as `sharding.put_batch` puts it."""
    if is_whole(name, value):
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=NamedSharding(mesh, P()))
    shape = (value.shape[0], rows, *value.shape[2:])
    return jax.ShapeDtypeStruct(shape, value.dtype, sharding=NamedSharding(mesh, P(None, BATCH_AXES)))


def lower(step: Step) -> Lowered:
    """The step as a run compiles it, on abstract arguments."""
    config, family = step.config, family_of(step.model)
    tx, _ = make_optimizer(config.optimizer, config.train.steps or TOTAL_STEPS)
    rng = jax.random.key(config.seed, impl=GENERATORS[config.model.dropout_bits])

    def start() -> TrainState:
        return init_state(family.init(step.model, rng), step.objective, tx, rng)

    state = laid_out(jax.eval_shape(start), step.mesh, family.sharding)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    lowered: Lowered = jitted_train_step(step.objective, tx, step.mesh, shardings).lower(state, step.batch)
    return lowered
