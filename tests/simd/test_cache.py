"""The kernel cache within one process: what is a hit, what is a miss, and that nothing crashes."""

import ctypes
import hashlib
import marshal
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeqwen.folders import user_cache
from edgeqwen.simd import cache
from edgeqwen.simd.cache import cache_folder
from edgeqwen.simd.compile import array_kernel, compilations, kernel
from edgeqwen.simd.isa import GENERIC

PACKAGE = "tests.simd"
_absolute = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(abs)


def twice(x):  # type: ignore[no-untyped-def]
    return 2 * x


def thrice(x):  # type: ignore[no-untyped-def]
    return 3 * x


def second(isa, x):  # type: ignore[no-untyped-def]
    return 2 * x


def half(x):  # type: ignore[no-untyped-def]
    return x / 2


def by_address(x):  # type: ignore[no-untyped-def]
    return x + _absolute(x)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEQWEN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def use(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """Calls a freshly decorated kernel, as a new process would: the result, and compilations."""
    before = len(compilations)
    return kernel(function)(*(arguments or (21,))), len(compilations) - before


def use_with_arrays(x: Any) -> tuple[Any, int]:
    """The same of a function of Numba's."""
    made = array_kernel(twice)
    result = made(x)
    return result, sum(made.dispatcher.stats.cache_misses.values())


def files() -> list[Path]:
    return sorted(cache_folder(PACKAGE).iterdir())


def test_compiled_once(folder: Path) -> None:
    assert use(twice) == (42, 1)
    assert use(twice) == (42, 0)
    (file,) = files()
    assert file.is_relative_to(folder / "kernels")
    assert file.name.startswith("test_cache.twice-")
    assert file.suffix == ".kernel"


def test_each_kernel_and_signature_has_its_own() -> None:
    assert use(twice) == (42, 1)
    assert use(second, GENERIC, 21) == (42, 1)
    assert use(second, 7, 21) == (42, 1)
    assert use(thrice) == (63, 1)
    assert len(files()) == 4
    assert use(twice) == use(second, GENERIC, 21) == use(second, 7, 21) == (42, 0)


def test_functions_of_arrays_are_kept_too() -> None:
    assert use_with_arrays(1.5) == (3.0, 1)
    assert use_with_arrays(3) == (6, 1)
    assert use_with_arrays(1.5) == (3.0, 0)
    assert len(files()) == 2


def test_what_is_no_integer_is_refused() -> None:
    with pytest.raises(TypeError, match="half returns float64, expected nothing or an int64"):
        use(half)


def test_another_function_of_the_same_name_is_another_kernel() -> None:
    def changed(x):  # type: ignore[no-untyped-def]
        return x * x + 1

    assert use(twice) == (42, 1)
    changed.__name__, changed.__qualname__ = twice.__name__, twice.__qualname__
    assert use(changed) == (442, 1)


@pytest.mark.parametrize("kept", [0, 1, 31, 32, 33, 1000, -1])
def test_a_cut_file_is_a_miss(kept: int) -> None:
    use(twice)
    (file,) = files()
    file.write_bytes(file.read_bytes()[:kept])
    assert use(twice) == (42, 1)
    assert use(twice) == (42, 0)  # it was written again


@pytest.mark.parametrize("place", [0, 31, 32, 500, 0.5, -1])
def test_a_flipped_bit_is_a_miss(place: float) -> None:
    use(twice)
    (file,) = files()
    data = bytearray(file.read_bytes())
    data[int(place * len(data)) if isinstance(place, float) else place] ^= 0x10
    file.write_bytes(data)
    assert use(twice) == (42, 1)


def test_a_folder_in_place_of_the_file_is_a_miss() -> None:
    use(twice)
    (file,) = files()
    file.unlink()
    file.mkdir()
    assert use(twice) == (42, 1)
    assert [f for f in files() if f.name.startswith(".")] == []


def test_a_sound_file_without_a_kernel_is_a_miss() -> None:
    use(twice)
    (file,) = files()
    for value in (7, (1, 2), ("f", True, "code"), ("f", 1, b"code"), [], None):
        payload = marshal.dumps(value)
        file.write_bytes(hashlib.sha256(payload).digest() + payload)
        assert use(twice) == (42, 1)
    for payload in (b"nothing of the kind", b"", marshal.dumps(("f", True, b"code"))[:-2]):
        file.write_bytes(hashlib.sha256(payload).digest() + payload)
        assert use(twice) == (42, 1)


def test_a_folder_that_can_not_be_written_only_costs_compiling(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    assert use(twice) == (42, 1)
    assert use(twice) == (42, 1)
    assert folder.is_file()


def test_a_failed_write_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert use(twice) == (42, 1)
    assert files() == []


def test_run_time_addresses_are_refused() -> None:
    for decorator in (kernel, array_kernel):
        with pytest.raises(TypeError, match="by_address refers to a run-time address and can't"):
            decorator(by_address)(-3)
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
    cache.kernels_digest.cache_clear()
    cache._source_digest.cache_clear()
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
        patch.setenv("NUMBA_CPU_NAME", "another")
        folders.append(fresh_folder())
    with monkeypatch.context() as patch:
        patch.setattr(cache, "cpu_identity", lambda: b"another")
        folders.append(fresh_folder())
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_numba_version", lambda: b"0.0")
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
