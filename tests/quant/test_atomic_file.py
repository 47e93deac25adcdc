"""A file appears whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from edgeqwen.errors import EdgeqwenError, OptionError
from edgeqwen.quant.atomic_file import AtomicFile, check_writable


def test_appears_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    with AtomicFile(path) as file:
        file.write(b"abc")
        assert not path.exists()
        (hidden,) = tmp_path.iterdir()
        assert hidden.name.startswith(".x.gguf.")
        file.write(memoryview(b"def"))
    assert path.read_bytes() == b"abcdef"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_remains_of_a_failure(tmp_path: Path, kind: type[BaseException]) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"before")

    def write() -> None:
        with AtomicFile(path) as file:
            file.write(b"x" * 1_000_000)
            raise kind

    with pytest.raises(kind):
        write()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_replaces_what_stood_there(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"before")
    with AtomicFile(path) as file:
        file.write(b"after")
    assert path.read_bytes() == b"after"


def test_writes_through_links(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "x.gguf", tmp_path / "link.gguf"
    link.symlink_to(target)
    with AtomicFile(link) as file:
        file.write(b"abc")
    assert link.is_symlink()
    assert target.read_bytes() == b"abc"


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    path, other = tmp_path / "x.gguf", tmp_path / "other"
    other.touch()
    with AtomicFile(path) as file:
        file.write(b"abc")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_long_names(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".gguf")
    with AtomicFile(path) as file:
        file.write(b"abc")
    assert path.read_bytes() == b"abc"


def test_places_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is a folder; give the name of a file in it"):
        AtomicFile(tmp_path).__enter__()
    with pytest.raises(OptionError, match=r"the folder .*gone doesn't exist; create it first"):
        AtomicFile(tmp_path / "gone" / "x.gguf").__enter__()
    if os.name != "nt":
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OptionError, match="exists and is no regular file"):
            AtomicFile(tmp_path / "pipe").__enter__()


def test_a_folder_that_can_not_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose file it is doesn't matter: the folder gets a new one in its place."""
    near, far = tmp_path / "near", tmp_path / "far"
    for folder in (near, far):
        folder.mkdir()
    (near / "link").symlink_to(far / "x.gguf")
    monkeypatch.setattr(os, "access", lambda path, mode: path != far)
    check_writable(near / "x.gguf")
    for path in (far / "x.gguf", near / "link"):
        with pytest.raises(OptionError) as error:
            check_writable(path)
        assert str(error.value) == (
            f"{path}: the folder {far} can't be written to; change its permissions, or choose "
            "another"
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    file = AtomicFile(path)
    file.__enter__()
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), file._file.fileno())
    with pytest.raises(EdgeqwenError, match=r"writing failed .No space left on device.; nothing"):
        file.write(b"x" * 1_000_000)
    error = OSError()
    file.__exit__(type(error), error, None)
    assert not list(tmp_path.iterdir())
