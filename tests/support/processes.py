"""This process's children and open files, to see that nothing is left."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children() -> set[str]:
    """Processes that this one began, the unburied too; other tests may have left helpers of the standard library."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found.update((task / "children").read_text().split())
    return found


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def actors_of(driver: int) -> list[int]:
    """Actors of the local Ray cluster that a process began, by the numbers of their processes."""
    parents, actors = dict[int, int](), list[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (folder / "cmdline").read_text().startswith("ray::_Actor"):
                actors.append(int(folder.name))

    def descends(number: int) -> bool:
        while number not in (0, driver):
            number = parents.get(number, 0)
        return number == driver

    return [number for number in actors if descends(number)]
