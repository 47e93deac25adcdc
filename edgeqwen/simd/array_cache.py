"""The kernel cache (``simd/cache.py``) as Numba's own functions use it: for array kernels."""

import pickle
from collections.abc import Callable
from typing import Any

from numba.core import compiler
from numba.core.caching import _Cache
from numba.core.serialize import dumps

from edgeqwen.simd.cache import CacheFile


class ArrayKernelCache(_Cache):  # type: ignore[misc]
    """Numba's interface of a cache. A file that can't be used is a miss."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def cache_path(self) -> str:
        return str(CacheFile(self._function, ()).path.parent)

    # Numba may ask a cache to stop and to forget; nobody asks this one.
    def enable(self) -> None: ...
    def disable(self) -> None: ...
    def flush(self) -> None: ...

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        payload = self._file(sig, target_context.codegen()).read()
        if payload is None:
            return None
        try:
            return compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception:  # whatever is wrong with the file, compiling again mends it
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if data.library.has_dynamic_globals:
            name = self._function.__qualname__
            raise TypeError(f"{name} refers to a run-time address and can't be cached")
        self._file(sig, data.codegen).write(dumps(data._reduce()))

    def _file(self, sig: Any, codegen: Any) -> CacheFile:
        return CacheFile(self._function, (str(sig), *map(str, codegen.magic_tuple())))
