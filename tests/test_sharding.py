"""The mesh, the rules, and one step on eight devices equal to one."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ncfair_jax.aot.collectives import collectives
from ncfair_jax.aot.hlo import parse
from ncfair_jax.config import ConfigError, MeshConfig, OptimizerConfig
from ncfair_jax.methods.mlm import mlm_objective
from ncfair_jax.methods.nc3 import ALIGNED, NC3Config, with_nc3
from ncfair_jax.models import bert
from ncfair_jax.optimizer import make_optimizer
from ncfair_jax.sharding import batch_shards, fit, make_mesh, put_batch, put_tree, state_shardings, to_host
from ncfair_jax.state import init_state, jitted_train_step
from tests import tiny
from tests.rounding import encoder_operations, rounding

pytestmark = pytest.mark.usefixtures("eight_devices")


def test_mesh_fills_the_rest_and_refuses_what_does_not_divide():
    assert dict(make_mesh(MeshConfig()).shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    mesh = make_mesh(MeshConfig(data=-1, fsdp=2, tensor=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert batch_shards(mesh) == 4
    with pytest.raises(ConfigError, match="does not divide 8 devices"):
        make_mesh(MeshConfig(data=3))
    with pytest.raises(ConfigError, match="covers 2 of 8"):
        make_mesh(MeshConfig(data=2))


def test_a_mesh_of_given_devices_has_those():
    mesh = make_mesh(MeshConfig(fsdp=2), there=jax.devices()[4:])
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 1}
    assert set(mesh.devices.flat) == set(jax.devices()[4:])


def test_specs_lose_axes_that_do_not_divide():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert fit(P(None, ("tensor", "fsdp")), (30522, 384), mesh) == P(None, ("tensor", "fsdp"))
    assert fit(P("fsdp", "tensor"), (7, 4), mesh) == P(None, ("tensor",))
    assert fit(P("data"), (8, 2), make_mesh(MeshConfig(data=1, fsdp=8))) == P(None, None)


def test_moments_lie_where_their_parameters_lie():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    tx, _ = make_optimizer(OptimizerConfig(), 10)
    objective = mlm_objective(tiny.MODEL)
    abstract = jax.eval_shape(lambda p: init_state(p, objective, tx, jax.random.key(0)), tiny.params())
    shardings = state_shardings(abstract, mesh, bert.BERT.sharding)
    params = shardings.params
    assert params["encoder"]["layer_1"]["intermediate"]["kernel"].spec == P(("fsdp",), ("tensor",))
    assert params["encoder"]["layer_1"]["norm"]["scale"].spec == P()
    adam = shardings.opt_state[1][0]
    for moments in (adam.mu, adam.nu):
        assert jax.tree.map(lambda s: s.spec, moments) == jax.tree.map(lambda s: s.spec, params)


def started(mesh):
    """The jitted step on a mesh, and the state before it."""
    # A large eps: with the usual one Adam turns the rounding noise of zero gradients (key biases) into whole steps.
    tx, _ = make_optimizer(OptimizerConfig(learning_rate=1e-2, eps=1e-2), 10)
    nc3 = NC3Config(weight=5.0, **ALIGNED)
    objective = with_nc3(mlm_objective(tiny.MODEL), nc3, tiny.classes(), tiny.MODEL, 5)
    rng = jax.random.key(0)
    abstract = jax.eval_shape(lambda p: init_state(p, objective, tx, rng), tiny.params())
    shardings = state_shardings(abstract, mesh, bert.BERT.sharding)
    state = jax.jit(lambda p: init_state(p, objective, tx, rng), out_shardings=shardings)(
        put_tree(tiny.params(), shardings.params)
    )
    return jitted_train_step(objective, tx, mesh, shardings), state


def three_steps(mesh_config, devices):
    mesh = make_mesh(mesh_config, devices)
    step, state = started(mesh)
    pipeline = tiny.pipeline(row_multiple=8)
    losses = []
    for index in range(3):
        state, metrics = step(state, put_batch(pipeline.batch(index), mesh))
        losses.append(float(metrics["loss"][0]))
    return losses, to_host(state.params)


MESHES = [MeshConfig(), MeshConfig(data=1, fsdp=8), MeshConfig(data=2, fsdp=2, tensor=2)]


@pytest.mark.parametrize("mesh_config", MESHES)
def test_eight_devices_do_what_one_does(mesh_config):
    losses, params = three_steps(mesh_config, 8)
    expected_losses, expected = three_steps(MeshConfig(), 1)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        # Three updates by gradients of norm 1, which the rate over Adam's eps lets through whole: the way there and back
        # through the encoder, and sums over the tokens of the batch.
        np.testing.assert_allclose(a, b, atol=3 * rounding(2 * encoder_operations(tiny.MODEL) + 256))


@pytest.mark.parametrize("mesh_config", [MeshConfig(data=1, fsdp=8), MeshConfig(data=2, fsdp=4)])
def test_devices_exchange_parameters_and_gradients_and_no_activations(mesh_config):
    """Also where there are so few rows that XLA would rather have the activations of all devices than the weights."""
    mesh = make_mesh(mesh_config)
    step, state = started(mesh)
    batch = put_batch(tiny.pipeline(row_multiple=8).batch(0), mesh)
    assert batch["tokens"].shape == (1, 8, 32)
    program = parse(step.lower(state, batch).compile().as_text())
    exchanged = sum(each.bytes * each.times for each in collectives(program))
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert exchanged < 3 * parameters  # brought together for either pass, and gradients added up
