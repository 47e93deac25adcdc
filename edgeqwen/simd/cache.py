"""Where compiled kernels are kept: one file per kernel and signature, in the user's cache folder.

Numba's own cache has two faults for a library like this one. It looks only at the file that holds
a function, so a kernel stays stale when an operation that it imports changes; and two processes
that compile at the same time can give one file name to two different kernels. Here the folder
carries a digest of the kernel's own room, of the rooms that all kernels share, and of everything
else that machine code depends on, and a file is named by the digest of its signature, written
aside and moved into place.
"""

import functools
import importlib.util
import marshal
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llvmlite

from edgeqwen.folders import keep_in_cache, user_cache
from edgeqwen.simd.cpu import cpu_identity
from edgeqwen.simd.machine_code import MachineCode

try:
    # Python's own; hashlib would load OpenSSL first, which takes 10 ms.
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

_hash = functools.partial(blake2b, digest_size=32)

# The rooms whose source, besides that of a kernel's own, decides what a kernel compiles to.
SHARED_PACKAGES = ("edgeqwen.simd", "edgeqwen.formats")


def cache_folder(package: str) -> Path:
    """Returns the folder for the compiled kernels of a package, within the user's cache."""
    return user_cache() / "kernels" / f"{package}-{kernels_digest(package)}"


class CacheFile:
    """The file of one function, compiled for one signature. One that can't be used is a miss."""

    def __init__(self, function: Callable[..., Any], signature: Sequence[str]) -> None:
        package, _, module = function.__module__.rpartition(".")
        code = _hash(function.__code__.co_code).hexdigest()
        digest = _hash(repr((*signature, code)).encode()).hexdigest()[:24]
        name = f"{module}.{function.__qualname__}-{digest}.kernel"
        self.path = cache_folder(package) / name

    def read(self) -> bytes | None:
        """Returns what was written, or None if that isn't there or isn't whole."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        digest, payload = data[:32], data[32:]
        return payload if _hash(payload).digest() == digest else None

    def write(self, payload: bytes) -> None:
        """Keeps something; a folder that can't be written only costs compiling again."""
        keep_in_cache(self.path, _hash(payload).digest() + payload)


def read_kernel(file: CacheFile) -> MachineCode | None:
    """Returns the machine code in a file, or None if it holds none."""
    payload = file.read()
    if payload is None:
        return None
    try:
        symbol, returns, object_file = marshal.loads(payload)
    except (ValueError, EOFError, TypeError):
        return None
    kinds = (type(symbol), type(returns), type(object_file))
    return MachineCode(symbol, returns, object_file) if kinds == (str, bool, bytes) else None


def write_kernel(file: CacheFile, code: MachineCode) -> None:
    """Keeps machine code for the next process."""
    file.write(marshal.dumps(tuple(code)))


@functools.cache
def kernels_digest(own_package: str) -> str:
    """Returns a digest of the kernel sources, the compiler's versions and the CPU."""
    h = _hash()
    for package in dict.fromkeys((*SHARED_PACKAGES, own_package)):
        h.update(_source_digest(package))
    versions = (sys.version, _numba_version(), llvmlite.__version__)
    settings = sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_CPU_"))
    h.update(repr((cpu_identity(), versions, settings)).encode())
    return h.hexdigest()[:24]


@functools.cache
def _source_digest(package: str) -> bytes:
    h = _hash()
    for name, source in _sources(package):
        h.update(f"{name}:{len(source)}:".encode() + source)
    return h.digest()


def _numba_version() -> bytes:
    """Returns the file in which Numba tells its version, without importing it."""
    return dict(_modules("numba", "_version"))["numba._version"]


def _sources(package: str) -> list[tuple[str, bytes]]:
    """Returns the package's modules by name with their source, or code where there is no source."""
    return _modules(package, "*")


def _modules(package: str, pattern: str) -> list[tuple[str, bytes]]:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return []
    files = sorted(Path(spec.submodule_search_locations[0]).glob(f"{pattern}.py"))
    if files:
        return [(f"{package}.{f.stem}", f.read_bytes()) for f in files]
    # A frozen application keeps code objects and no files: its modules are listed by the importer.
    import fnmatch
    import pkgutil

    found = []
    for module in pkgutil.iter_modules(spec.submodule_search_locations, package + "."):
        if not fnmatch.fnmatch(module.name.rpartition(".")[2], pattern):
            continue
        child = importlib.util.find_spec(module.name)
        loader = child.loader if child else None
        code = getattr(loader, "get_code", lambda _: None)(module.name)
        found.append((module.name, marshal.dumps(code) if code else b""))
    return sorted(found)
