"""The kernel cache between processes: shared, renewed when sources change, written by several."""

import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.simd.processes import answer, start

pytestmark = pytest.mark.processes

SOURCE = """
from edgeqwen.simd.compile import kernel
FACTOR = 2

@kernel
def scaled(x):
    return FACTOR * x
"""
PROGRAM = """
import json
from edgeqwen.simd.compile import compilations
from room.kernels import scaled
print(json.dumps([scaled(21), len(compilations)]))
"""
# Both say that they are ready and wait for the other, so that they compile at the same time.
TOGETHER = """
import sys, time
from pathlib import Path
import room.kernels
folder = Path("{folder}")
(folder / "{me}").touch()
while len(list(folder.iterdir())) < 2:
    time.sleep(0.001)
"""


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A package with a kernel; its constant stands outside of the function's own code."""
    folder = tmp_path / "sources" / "room"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "kernels.py").write_text(SOURCE)
    return folder


def run(room: Path, *, program: str = PROGRAM) -> Any:
    return answer(begin(room, program=program))


def begin(room: Path, *, program: str = PROGRAM) -> Any:
    cache = room.parents[1] / "cache"
    return start(program, room.parent, environment={"EDGEQWEN_CACHE_DIR": str(cache)})


def folders(room: Path) -> list[Path]:
    return sorted((room.parents[1] / "cache" / "kernels").iterdir())


def test_a_second_process_hits_and_changed_sources_miss(room: Path) -> None:
    assert run(room) == [42, 1]
    assert run(room) == [42, 0]
    assert len(folders(room)) == 1
    (room / "kernels.py").write_text(SOURCE.replace("FACTOR = 2", "FACTOR = 3"))
    assert run(room) == [63, 1]
    assert len(folders(room)) == 2
    # Another module of the same room may hold an operation that the kernel uses.
    (room / "kernels.py").write_text(SOURCE)
    (room / "other.py").write_text("# nothing")
    assert run(room) == [42, 1]
    assert len(folders(room)) == 3


def test_two_processes_compile_at_once(room: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ready.mkdir()
    both = [
        begin(room, program=TOGETHER.format(folder=ready, me=me) + PROGRAM) for me in ("a", "b")
    ]
    for process in both:
        result, n_compiled = answer(process)
        assert result == 42
        assert n_compiled <= 1
    (folder,) = folders(room)
    assert [file.suffix for file in folder.iterdir()] == [".kernel"]  # and nothing unfinished
    assert run(room) == [42, 0]


def test_without_source_files_the_code_counts(room: Path, tmp_path: Path) -> None:
    """A frozen application keeps its modules elsewhere than in files, here in an archive."""
    archive = tmp_path / "frozen" / "sources.zip"
    archive.parent.mkdir()

    def freeze(source: str) -> None:
        with zipfile.ZipFile(archive, "w") as out:
            out.writestr("room/__init__.py", "")
            out.writestr("room/kernels.py", source)

    def run_frozen() -> Any:
        cache = tmp_path / "cache"
        return answer(start(PROGRAM, archive, environment={"EDGEQWEN_CACHE_DIR": str(cache)}))

    freeze(SOURCE)
    assert run_frozen() == [42, 1]
    freeze(SOURCE.replace("FACTOR = 2", "FACTOR = 3"))
    assert run_frozen() == [63, 1]
