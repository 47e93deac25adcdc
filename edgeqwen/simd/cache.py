"""Where compiled kernels are kept: one file per kernel and signature, in the user's cache folder.

Numba's own cache has two faults for a library like this one. It looks only at the file that holds
a function, so a kernel stays stale when an intrinsic that it imports changes; and two processes
that compile at the same time can give one file name to two different kernels. Here the folder
carries a digest of the kernel's own room, of the rooms that
all kernels share, and of everything else that machine code depends on, and a
file is named by the digest of its signature, written aside and moved into place.
"""

import contextlib
import functools
import hashlib
import importlib.util
import marshal
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.core import compiler
from numba.core.caching import _Cache
from numba.core.serialize import dumps

from edgeqwen.folders import user_cache

# The rooms whose source, besides that of a kernel's own, decides what a kernel compiles to.
SHARED_PACKAGES = ("edgeqwen.simd", "edgeqwen.formats")


def cache_folder(package: str) -> Path:
    """Returns the folder for the compiled kernels of a package, within the user's cache."""
    return user_cache() / "kernels" / f"{package}-{_digest(package)}"


@functools.cache
def _digest(own_package: str) -> str:
    """Returns a digest of the kernel sources, the compiler's versions and the CPU."""
    h = hashlib.sha256()
    for package in dict.fromkeys((*SHARED_PACKAGES, own_package)):
        for name, source in _sources(package):
            h.update(f"{name}:{len(source)}:".encode() + source)
    cpu = (llvm.get_host_cpu_name(), sorted(llvm.get_host_cpu_features().items()))
    versions = (sys.version, numba.__version__, llvmlite.__version__)
    settings = sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_CPU_"))
    h.update(repr((cpu, versions, settings)).encode())
    return h.hexdigest()[:24]


def _sources(package: str) -> list[tuple[str, bytes]]:
    """Returns the package's modules by name with their source, or code where there is no source."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return []
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.py"))
    if files:
        return [(f"{package}.{f.stem}", f.read_bytes()) for f in files]
    # A frozen application keeps code objects and no files: its modules are listed by the importer.
    import pkgutil

    found = []
    for module in pkgutil.iter_modules(spec.submodule_search_locations, package + "."):
        child = importlib.util.find_spec(module.name)
        loader = child.loader if child else None
        code = getattr(loader, "get_code", lambda _: None)(module.name)
        found.append((module.name, marshal.dumps(code) if code else b""))
    return sorted(found)


class KernelCache(_Cache):  # type: ignore[misc]
    """Numba's cache interface over ``cache_folder()``. A file that can't be used is a miss."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._package, _, module = function.__module__.rpartition(".")
        self._name = f"{module}.{function.__qualname__}"
        self._code = hashlib.sha256(function.__code__.co_code).hexdigest()
        self._enabled = True

    @property
    def cache_path(self) -> str:
        return str(cache_folder(self._package))

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        for file in cache_folder(self._package).glob(f"{self._name}-*.kernel"):
            file.unlink(missing_ok=True)

    def _file(self, sig: Any, codegen: Any) -> Path:
        key = repr((str(sig), codegen.magic_tuple(), self._code)).encode()
        name = f"{self._name}-{hashlib.sha256(key).hexdigest()[:24]}.kernel"
        return cache_folder(self._package) / name

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if not self._enabled:
            return None
        target_context.refresh()
        try:
            data = self._file(sig, target_context.codegen()).read_bytes()
            digest, payload = data[:32], data[32:]
            if hashlib.sha256(payload).digest() != digest:
                return None
            return compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception:  # whatever is wrong with the file, compiling again mends it
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled:
            return
        if data.library.has_dynamic_globals:
            raise TypeError(f"{self._name} refers to a run-time address and can't be cached")
        file = self._file(sig, data.codegen)
        payload = dumps(data._reduce())
        # A folder that can't be written only costs compiling again in the next process.
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(hashlib.sha256(payload).digest() + payload)
                os.replace(temporary, file)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
