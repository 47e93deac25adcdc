"""The kernel cache within one process: what is a hit, what is a miss, and that nothing crashes."""

import ctypes
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import pytest

from edgeqwen.folders import user_cache
from edgeqwen.simd import cache
from edgeqwen.simd.cache import cache_folder
from edgeqwen.simd.compile import kernel

PACKAGE = "tests.simd"
_absolute = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(abs)


def twice(x):  # type: ignore[no-untyped-def]
    return 2 * x


def thrice(x):  # type: ignore[no-untyped-def]
    return 3 * x


def by_address(x):  # type: ignore[no-untyped-def]
    return _absolute(x)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEQWEN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def use(function: Callable[[Any], Any], x: Any = 21) -> tuple[Any, int, int]:
    """Calls a freshly decorated kernel, as a new process would: the result, hits and misses."""
    dispatcher = kernel(function)
    result = dispatcher(x)
    stats = dispatcher.stats
    return result, sum(stats.cache_hits.values()), sum(stats.cache_misses.values())


def files() -> list[Path]:
    return sorted(cache_folder(PACKAGE).iterdir())


def test_compiled_once(folder: Path) -> None:
    assert use(twice) == (42, 0, 1)
    assert use(twice) == (42, 1, 0)
    (file,) = files()
    assert file.is_relative_to(folder / "kernels")
    assert file.name.startswith("test_cache.twice-")
    assert file.suffix == ".kernel"


def test_each_kernel_and_signature_has_its_own() -> None:
    assert use(twice) == (42, 0, 1)
    assert use(twice, 1.5) == (3.0, 0, 1)
    assert use(thrice) == (63, 0, 1)
    assert len(files()) == 3
    assert [use(twice), use(twice, 1.5), use(thrice)] == [(42, 1, 0), (3.0, 1, 0), (63, 1, 0)]


def test_another_function_of_the_same_name_is_another_kernel() -> None:
    def changed(x):  # type: ignore[no-untyped-def]
        return x * x + 1

    assert use(twice) == (42, 0, 1)
    changed.__name__, changed.__qualname__ = twice.__name__, twice.__qualname__
    assert use(changed) == (442, 0, 1)


@pytest.mark.parametrize("kept", [0, 1, 31, 32, 33, 1000, -1])
def test_a_cut_file_is_a_miss(kept: int) -> None:
    use(twice)
    (file,) = files()
    file.write_bytes(file.read_bytes()[:kept])
    assert use(twice) == (42, 0, 1)
    assert use(twice) == (42, 1, 0)  # it was written again


@pytest.mark.parametrize("place", [0, 31, 32, 500, 0.5, -1])
def test_a_flipped_bit_is_a_miss(place: float) -> None:
    use(twice)
    (file,) = files()
    data = bytearray(file.read_bytes())
    data[int(place * len(data)) if isinstance(place, float) else place] ^= 0x10
    file.write_bytes(data)
    assert use(twice) == (42, 0, 1)


def test_a_folder_in_place_of_the_file_is_a_miss() -> None:
    use(twice)
    (file,) = files()
    file.unlink()
    file.mkdir()
    assert use(twice) == (42, 0, 1)
    assert [f for f in files() if f.name.startswith(".")] == []


class Tripwire:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_what_the_digest_does_not_vouch_for_is_never_unpickled(tmp_path: Path) -> None:
    use(twice)
    (file,) = files()
    mark = tmp_path / "unpickled"
    payload = pickle.dumps(Tripwire(mark))
    file.write_bytes(file.read_bytes()[:32] + payload)
    assert use(twice) == (42, 0, 1)
    assert not mark.exists()


def test_a_sound_file_without_a_kernel_is_a_miss() -> None:
    use(twice)
    (file,) = files()
    for payload in (b"no pickle", b"", pickle.dumps(7), pickle.dumps((1, 2)), b"\x80\x05K\x01"):
        file.write_bytes(hashlib.sha256(payload).digest() + payload)
        assert use(twice) == (42, 0, 1)


def test_a_folder_that_can_not_be_written_only_costs_compiling(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    assert use(twice) == (42, 0, 1)
    assert use(twice) == (42, 0, 1)
    assert folder.is_file()


def test_a_failed_write_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert use(twice) == (42, 0, 1)
    assert files() == []


def test_disabled() -> None:
    dispatcher = kernel(twice)
    dispatcher._cache.disable()
    assert dispatcher(21) == 42
    assert not cache_folder(PACKAGE).exists()
    dispatcher = kernel(twice)
    dispatcher._cache.disable()
    dispatcher._cache.enable()
    assert dispatcher(21) == 42
    assert len(files()) == 1


def test_flush_removes_one_kernel_in_all_its_signatures() -> None:
    use(twice), use(twice, 1.5), use(thrice)
    kernel(twice)._cache.flush()
    assert [file.name.partition("-")[0] for file in files()] == ["test_cache.thrice"]


def test_run_time_addresses_are_refused() -> None:
    with pytest.raises(TypeError, match="by_address refers to a run-time address and can't be"):
        use(by_address, -3)
    assert not cache_folder(PACKAGE).exists()


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_choice_the_user_s_cache_folder(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("EDGEQWEN_CACHE_DIR")
    else:
        monkeypatch.setenv("EDGEQWEN_CACHE_DIR", value)
    assert cache_folder(PACKAGE).parent == user_cache() / "kernels"
    assert cache_folder(PACKAGE).is_absolute()


def fresh_folder(package: str = PACKAGE) -> str:
    cache._digest.cache_clear()
    return cache_folder(package).name


def test_the_folder_depends_on_all_that_machine_code_depends_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = [fresh_folder(), fresh_folder("edgeqwen.kernels"), fresh_folder("edgeqwen.executor")]
    read = cache._sources

    def changed(part: str) -> Callable[[str], list[tuple[str, bytes]]]:
        return lambda package: [
            (name, source + b"#" if name == part else source) for name, source in read(package)
        ]

    for part in ("edgeqwen.simd.ops", "edgeqwen.formats.q4", "tests.simd.kernels"):
        with monkeypatch.context() as patch:
            patch.setattr(cache, "_sources", changed(part))
            folders.append(fresh_folder())
    with monkeypatch.context() as patch:
        patch.setenv("NUMBA_CPU_NAME", "haswell")
        folders.append(fresh_folder())
    with monkeypatch.context() as patch:
        patch.setattr(llvm, "get_host_cpu_name", lambda: "another")
        folders.append(fresh_folder())
    with monkeypatch.context() as patch:
        patch.setattr(llvm, "get_host_cpu_features", lambda: {"avx2": False})
        folders.append(fresh_folder())
    with monkeypatch.context() as patch:
        patch.setattr(numba, "__version__", "0.0")
        folders.append(fresh_folder())
    assert len(set(folders)) == len(folders)
    assert fresh_folder() == folders[0]


def test_another_room_s_sources_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = fresh_folder(), cache._sources
    monkeypatch.setattr(
        cache,
        "_sources",
        lambda package: [
            (n, s + b"#" if n.startswith("edgeqwen.kernels") else s) for n, s in read(package)
        ],
    )
    assert fresh_folder() == before
