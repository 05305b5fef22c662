"""Who may import whom: no circle of files, none of rooms, and every import goes down."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ncfair_jax"

# Each line may import the lines above it, and the rooms of one line nothing of each other. A room is a folder or a file of the
# package. The last line is what commands are made of: its files may import each other, without a circle.
LAYERS = (
    ("divergence", "exits", "fields", "finite", "native_errors", "stopping", "strings"),
    ("files",),
    ("config", "run_log", "statistics", "vocabulary"),
    ("environment", "manifest", "unread", "workdir"),
    ("sharding",),
    ("data",),
    ("lexicons",),
    ("models", "formulas of collapse"),
    ("engine",),
    ("collapse",),
    ("methods",),
    ("tasks",),
    ("benchmarks",),
    ("registry",),
    ("report",),
    (
        "arms",
        "checkpoint",
        "evaluation",
        "finished",
        "launcher",
        "measurement",
        "optimizer",
        "prepare",
        "processes",
        "recipes",
        "speed",
        "state",
        "sweep",
        "throughput",
        "tracker",
        "train",
        "world",
    ),
)
FORMULAS = {f"collapse.{name}" for name in ("agreement", "class_stats", "measures", "pairs", "regularizer")}
NEVER = {("benchmarks", "methods")}  # though it would go down


def modules() -> dict[str, Path]:
    """Files by their dotted name below the package; a room's __init__ is the room."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")
        if name:
            found[name] = path
    return found


def imports(path: Path, known: Iterable[str]) -> set[str]:
    """Files of the package that a file imports, inside functions too; a name from a room also imports its __init__."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("ncfair_jax.") for name in found} & set(known)


def room_of(module: str) -> str:
    return "formulas of collapse" if module in FORMULAS else module.split(".")[0]


def graph() -> dict[str, set[str]]:
    found = modules()
    return {name: imports(path, found) - {name} for name, path in found.items()}


def in_circles(arrows: Mapping[str, set[str]]) -> set[str]:
    """Those that can be reached from themselves."""
    found = set()
    for start in arrows:
        seen, todo = set[str](), list(arrows[start])
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += arrows.get(name, ())
        if start in seen:
            found.add(start)
    return found


def test_every_file_has_a_layer():
    rooms = [room for layer in LAYERS for room in layer]
    assert len(rooms) == len(set(rooms))
    assert {room_of(name) for name in modules()} <= set(rooms)


def test_every_import_goes_down():
    layer = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
    last, wrong = len(LAYERS) - 1, set()
    for name, targets in graph().items():
        for target in targets:
            room, other = room_of(name), room_of(target)
            level = layer[other] <= layer[room] if layer[room] == last else layer[other] < layer[room]
            if room != other and (not level or (room, other) in NEVER):
                wrong.add((name, target))
    assert wrong == set(), "these imports go up or sideways"


@pytest.mark.parametrize("of", ["files", "rooms"])
def test_no_circle(of):
    arrows = graph()
    if of == "rooms":
        files, arrows = arrows, {}
        for name, targets in files.items():
            own = room_of(name)
            arrows.setdefault(own, set()).update({room_of(target) for target in targets} - {own})
    assert in_circles(arrows) == set(), "these import themselves by way of others"
