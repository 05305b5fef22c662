"""Progress bars on stderr."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, track

Item = TypeVar("Item")


def shown(items: Iterable[Item], what: str, progress: bool) -> Iterable[Item]:
    """The items, with a progress bar that says what is done with them, if asked for."""
    return track(items, description=what, console=Console(stderr=True), disable=not progress)


@contextmanager
def bar(total: int, progress: bool) -> Iterator[Callable[[str], None]]:
    """One bar of so many steps; the function it gives is called before each, with what is done in it."""
    with Progress(console=Console(stderr=True), disable=not progress, transient=False) as shown:
        task = shown.add_task("", total=total)

        def step(what: str) -> None:
            shown.update(task, description=what, advance=1)

        yield step
