"""The mesh, and where parameters and batches lie on it."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ncfair_jax.config import ConfigError, MeshConfig

BATCH_AXES = ("data", "fsdp")
COUNT = "num_examples"  # of a batch, for the host alone
WHOLE = "example_"  # arrays of this name belong to the examples and not to rows: every device and process has them all
Rules = Sequence[tuple[str, P]]  # regex of a path -> how the leaf lies; the first match wins, else it is replicated


def make_mesh(config: MeshConfig, num_devices: int | None = None, there: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh with axes data, fsdp, tensor over all devices of all processes, or over devices that may be elsewhere.

    Args:
        num_devices: the first so many.
        there: those of a topology that is not this machine's; None: the devices that jax finds.
    Raises:
        ConfigError: if the sizes do not multiply to the number of devices.
    """
    devices = num_devices or (jax.device_count() if there is None else len(there))
    sizes = [config.data, config.fsdp, config.tensor]
    known = int(np.prod([size for size in sizes if size != -1]))
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes) or devices % known:
        raise ConfigError(f"config.mesh={tuple(sizes)} does not divide {devices} devices; one size may be -1")
    sizes = [devices // known if size == -1 else size for size in sizes]
    if np.prod(sizes) != devices:
        raise ConfigError(
            f"config.mesh={tuple(sizes)} covers {np.prod(sizes)} of {devices} devices; set one size to -1"
        )
    axes = ("data", "fsdp", "tensor")
    return jax.make_mesh(tuple(sizes), axes, axis_types=(AxisType.Auto,) * 3, devices=there)


def on_mesh(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The function, to be jitted, for what asks jax for the mesh while it is traced: a kernel that splits its own work."""

    def traced(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """Number of devices that the rows of a batch are split over."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def traced_mesh() -> AbstractMesh | None:
    """The mesh of a run that a function is traced for (`on_mesh`); None without one, or if it has one device.

    Nor is one told inside of `shard_map`, where each device is by itself already, or of a mesh with other axes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    of_run = set(BATCH_AXES) <= set(mesh.axis_names) and all(kind == AxisType.Auto for kind in mesh.axis_types)
    return mesh if of_run and mesh.size > 1 else None


# XLA is free to choose how what is between the arguments and results of a step lies on the mesh. Rows and weights are split
# over the same axis fsdp, and where they meet it may bring together the rows of all devices instead of the weight. These say
# how it is to be. Without a mesh of several devices they change nothing.


def keep_rows(x: jax.Array) -> jax.Array:
    """Activations [R, …], of which every device has its own rows whole."""
    mesh = traced_mesh()
    if mesh is None or x.shape[0] % batch_shards(mesh):
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(BATCH_AXES)))


def keep_whole(tree: Any) -> Any:
    """Arrays of which every device has all."""
    mesh = traced_mesh()
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, P()))


def keep_laid_out(params: Any, rules: Rules) -> Any:
    """Parameters, and with them their gradients, that lie as the rules say."""
    mesh = traced_mesh()
    return params if mesh is None else jax.lax.with_sharding_constraint(params, state_shardings(params, mesh, rules))


def fit(spec: P, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """The spec without axes that do not divide the shape, and without those of length 1."""
    parts: list[Any] = []
    for size, names in zip(shape, tuple(spec) + (None,) * (len(shape) - len(spec)), strict=True):
        axes = (names,) if isinstance(names, str) else tuple(names or ())
        axes = tuple(axis for axis in axes if mesh.shape[axis] > 1)
        parts.append(axes if axes and size % int(np.prod([mesh.shape[axis] for axis in axes])) == 0 else None)
    return P(*parts)


def state_shardings(tree: Any, mesh: Mesh | AbstractMesh, rules: Rules) -> Any:
    """A NamedSharding for every leaf of a (possibly abstract) state, by its path and the rules of the model's family.

    Optimizer moments end in the path of their parameter and so lie where it lies.
    """

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, spec in rules:
            if re.search(pattern, name) and len(spec) <= len(leaf.shape):
                return NamedSharding(mesh, fit(spec, leaf.shape, mesh))
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(sharding, tree)


def laid_out(tree: Any, mesh: Mesh, rules: Rules) -> Any:
    """The shapes of a (possibly abstract) state, each with its sharding: enough to compile for devices that are not here."""

    def shape(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, tree, state_shardings(tree, mesh, rules))


def put_tree(tree: Any, shardings: Any) -> Any:
    """Host arrays, equal in every process, onto the mesh."""

    def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if jax.process_count() == 1:
            return jax.device_put(leaf, sharding)
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree, shardings)


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays on the device or, replicated unless they lie there already, on the mesh: once, not for every batch."""
    if mesh is None:
        return jax.device_put(tree)
    shardings = (leaf.sharding if isinstance(leaf, jax.Array) else None for leaf in jax.tree.leaves(tree))
    if all(isinstance(sharding, NamedSharding) and sharding.mesh == mesh for sharding in shardings):
        return tree
    return put_tree(tree, jax.tree.map(lambda _: NamedSharding(mesh, P()), tree))


def put_rows(tree: Any, mesh: Mesh | None) -> Any:
    """Host arrays, equal in every process, onto the device or, their first axis shared out, over all axes of the mesh."""
    if mesh is None:
        return jax.device_put(tree)
    rows = NamedSharding(mesh, P(mesh.axis_names))
    return put_tree(tree, jax.tree.map(lambda _: rows, tree))


def gathered(tree: Any, mesh: Mesh | None) -> Any:
    """Within a jitted function: its results, whole on every device of the mesh, so that every process can fetch them."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, P()))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows [A, R/A/processes, …] become its part of the global batch; scalars are replicated.

    The number of examples stays behind: by rows each process has an estimate of its own.
    """
    rows = NamedSharding(mesh, P(None, BATCH_AXES))
    everywhere = NamedSharding(mesh, P())
    return {
        name: jax.make_array_from_process_local_data(everywhere if is_whole(name, value) else rows, value)
        for name, value in batch.items()
        if name != COUNT
    }


def is_whole(name: str, value: np.ndarray) -> bool:
    """Whether every process and device has all of an array of a batch."""
    return value.ndim == 0 or name.startswith(WHOLE)


def to_host(tree: Any) -> Any:
    """Full numpy copies of a sharded tree, in every process (a collective where processes are several)."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def of_process_0(value: Any) -> Any:
    """JSON that process 0 has, in every process (two collectives where processes are several)."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    text = json.dumps(value).encode() if jax.process_index() == 0 else b""
    sent = np.zeros(int(multihost_utils.broadcast_one_to_all(np.int32(len(text)))), np.uint8)
    sent[: len(text)] = np.frombuffer(text, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes())


def agreed(value: bool) -> bool:
    """What process 0 says, in every process (a collective where processes are several)."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.bool_(value)))
