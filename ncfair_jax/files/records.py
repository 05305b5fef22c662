"""Files that this package wrote and reads again. A damaged one is told in one line: the file, its fault, the remedy."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ncfair_jax.files.digests import refuse_damaged
from ncfair_jax.files.reading import DataError, parse_json, read_json

# What a document must look like: a type, [form] for a list of such, or {key: form} for keys that must be there; one that ends
# with "?" may be absent, since earlier versions did not write it.
Form = type | Mapping[str, Any] | list[Any]

CONFIG: Form = {
    "seed": int,
    "model": {"path": str},
    "data": {"path": str, "corpus": str},
    "objective": {"name": str},
    "evals": {"benchmarks": str, "collapse_text": str},
}
ENVIRONMENT: Form = [{"command?": str, "versions?": dict, "wall_seconds?": float}]
FIGURES: Form = {"benchmarks": [list], "collapse": dict, "content?": dict}  # of a model that a run judged
RESULT: Form = {"before": FIGURES, "after": FIGURES, "table": str, "judged?": dict, "diverged?": [str]}
# NAME.json of a benchmark.
DOCUMENT: Form = {
    "model": str,
    "metrics": dict,
    "intervals": dict,
    "settings": dict,
    "fingerprints?": {"model": str},
    "left_out?": [{"note": str}],
    "quality?": dict,
    "content_warning?": str,
}
MEASURES: Form = {"settings": dict, "content?": dict}
MEASURED: Form = {"models": [str]}  # models.json of a measurement of several models
SURVEY: Form = {"weights": str, "text": str, "words": str}
SWEEP: Form = {"start": dict, "arms": dict, "comparisons": dict}  # figures.json of a sweep
MANIFEST: Form = {"runs": [{"arm": str, "seed": int, "folder": str, "model": str, "start": str, "status": str}]}
NOTES: Form = [{"note": str}]
EVALUATE_AGAIN = "delete it and evaluate the model again"
MEASURE_AGAIN = "delete it and measure again"
JUDGE_AGAIN = "delete it and the run's result.json, and the run's command makes the figures again"

_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def read_record(path: Path, form: Form, remedy: str) -> Any:
    """The content of a JSON file of ours.

    Args:
        remedy: what to do if it is damaged, to end the message.
    Raises:
        DataError: if it is missing, not what was written (`files.digests`), not JSON, or of another form.
    """
    refuse_damaged(path, remedy)
    try:
        content = read_json(path)
    except DataError as error:
        raise DataError(f"{error}; {remedy}") from None
    if fault := wrong_form(content, form):
        raise DataError(f"{path}: {fault}; {remedy}")
    return content


def wrong_form(content: Any, form: Any, name: str = "the file") -> str:
    """What is wrong with a document that should be of a `Form`, named by where it is; "" if it is of the form."""
    kind: Any = dict if isinstance(form, Mapping) else list if isinstance(form, list) else form
    if not isinstance(content, kind):
        return f"{name} holds {_NAMES.get(type(content), 'null')}, expected {_NAMES[kind]}"
    if isinstance(form, list):
        return next((fault for entry in content if (fault := wrong_form(entry, form[0], f"an entry of {name}"))), "")
    if isinstance(form, Mapping):
        for named, inner in form.items():
            key = named.removesuffix("?")
            if key not in content:
                if key == named:
                    return f"{name} lacks {key!r}"
                continue
            if fault := wrong_form(content[key], inner, repr(key)):
                return fault
    return ""


@contextmanager
def taken_apart(path: Path, remedy: str) -> Iterator[None]:
    """Around code that takes a document of ours apart, deeper than a form says: it is damaged where that fails.

    Raises:
        DataError: naming the file, what failed and the remedy.
    """
    try:
        yield
    except DataError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: not as this package writes it ({type(error).__name__}: {error}); {remedy}") from error


class Line(NamedTuple):
    """A line of metrics.jsonl: as it stands, and the figures in it with their "step"."""

    text: str
    figures: dict[str, Any]


def metrics_lines(path: Path) -> tuple[list[Line], list[str]]:
    """The lines of metrics.jsonl that can be read, and a note on each other one.

    A last line that is cut off is not worth a note: the run may be going on, or it was killed.
    """
    lines, faults = [], []
    numbered = [(number, line) for number, line in enumerate(path.read_bytes().split(b"\n"), start=1) if line.strip()]
    for number, line in numbered:
        if (figures := _figures(line, path)) is not None:
            lines.append(Line(line.decode(), figures))
        elif number != numbered[-1][0]:
            faults.append(f"{path}:{number}: the line is damaged and left out; to have its figures again, train again")
    return lines, faults


def _figures(line: bytes, path: Path) -> dict[str, Any] | None:
    """What a line holds: numbers or null by name, with the step; None if it is damaged."""
    try:
        found = parse_json(line.decode(), str(path))
    except (UnicodeDecodeError, DataError):
        return None
    if not isinstance(found, dict) or not all(type(value) in (int, float, type(None)) for value in found.values()):
        return None
    return found if isinstance(found.get("step"), int) else None
