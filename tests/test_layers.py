"""Who may import whom: no circle of files, none of rooms, and every import goes down. And what only one place may know."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from ncfair_jax.models.families import FAMILIES

PACKAGE = Path(__file__).parents[1] / "ncfair_jax"

# Each line may import the lines above it, and the rooms of one line nothing of each other. A room is a folder or a file of the
# package. The last line is what commands are made of: its files may import each other, without a circle.
LAYERS = (
    ("divergence", "exits", "fields", "finite", "native_errors", "process_flags", "stopping", "strings"),
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
        "aot",
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
# What only models/ knows, and those that build a model or PyTorch's side of a race from parts.
FAMILY_NAMES = {name for family in FAMILIES for name in family.model_types}
KNOW_FAMILIES = ("models", "speed", "world")
# How a tokenizer is asked for the special tokens around a text, which vocabulary.py alone places.
PLACED = {f"{kind}_token{end}" for kind in ("cls", "sep", "bos", "eos") for end in ("", "_id")}
PLACED |= {"num_special_tokens_to_add", "build_inputs_with_special_tokens"}


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


def mentions(path: Path, names: Iterable[str]) -> list[str]:
    """Those of the names that a file's code has as an attribute or a string of their own, with their lines."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        value = getattr(node, "value", None) if isinstance(node, ast.Constant) else getattr(node, "attr", None)
        if isinstance(value, str) and value in names:
            found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {value}")
    return found


def test_only_the_rooms_of_models_name_a_family():
    assert {"bert", "roberta"} <= FAMILY_NAMES
    others = [path for name, path in modules().items() if room_of(name) not in KNOW_FAMILIES]
    assert [found for path in others for found in mentions(path, FAMILY_NAMES)] == []


def test_only_the_vocabulary_places_special_tokens():
    others = [path for name, path in modules().items() if room_of(name) not in ("models", "vocabulary")]
    assert [found for path in others for found in mentions(path, PLACED)] == []
    assert mentions(PACKAGE / "vocabulary.py", PLACED)  # it would be seen
