"""One conversion in a process of its own: edgeqwen's, llama.cpp's, or a plain copy of the bytes."""

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.memory import peak_rss_bytes, private_bytes

COPY = "copy"
# f(source, output, type, n_threads, copied_bytes); only a copy looks at the last.
Converter = Callable[[Path, Path, str, int, int], None]
_POLL_S = 0.05  # between two looks at another process's memory
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """What one conversion took.

    ``seconds`` are those of the conversion, ``import_s`` those of importing what converts, and
    ``flush_s`` those of writing to the disk what the converter has left in the page cache.
    ``peak_rss_bytes`` counts touched pages of mapped files, ``peak_private_bytes`` doesn't: it is
    the most of what was seen every 50 ms, and None where the system doesn't tell.
    """

    import_s: float
    seconds: float
    flush_s: float
    output_bytes: int
    peak_rss_bytes: int
    peak_private_bytes: int | None = None


def run(
    who: str, source: Path, output: Path, type: str, n_threads: int, *, copied_bytes: int = 0
) -> Run:
    """Starts a process that converts a file, waits for it, and removes what it wrote.

    ``who`` is a key of CONTESTANTS; a copy writes ``copied_bytes`` of what it reads.
    Raises RuntimeError if the process fails, whose messages are on standard error.
    """
    if hasattr(os, "sync"):
        os.sync()  # what earlier runs have written is not to be waited for in this one
    arguments = (who, str(source), str(output), type, str(n_threads), str(copied_bytes))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.quantize_run", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    private: list[int] = []
    try:
        while process.poll() is None:
            private += private_bytes(process.pid)
            time.sleep(_POLL_S)
    finally:
        process.kill()  # a benchmark that is interrupted leaves nobody at work
        answer, _ = process.communicate()
        output.unlink(missing_ok=True)
    if process.returncode:
        raise RuntimeError(f"{who} to {type} ended with code {process.returncode}")
    found = json.loads(answer.splitlines()[-1])
    return Run(**{**found, "peak_private_bytes": max(private, default=None)})


def edgeqwen_converter() -> Converter:
    """Returns ``edgeqwen.quant.quantize``, which leaves nothing to flush."""
    import edgeqwen.quant.rows  # noqa: F401 - what quantize would import in its own time
    from edgeqwen.quant import quantize

    def convert(source: Path, output: Path, type: str, n_threads: int, _: int) -> None:
        quantize(source, output, type, n_threads=n_threads)

    return convert


def llama_cpp_converter() -> Converter:
    """Returns ``llama_model_quantize``."""
    from benchmarks.llama import LlamaError, llama_cpp

    def convert(source: Path, output: Path, type: str, n_threads: int, _: int) -> None:
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.nthread = n_threads
        parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{type.upper()}")
        paths = str(source).encode(), str(output).encode()
        code = llama_cpp.llama_model_quantize(*paths, ctypes.byref(parameters))
        if code != 0:
            raise LlamaError(f"llama.cpp can't quantize {source} to {type} (code {code})")

    return convert


def copier() -> Converter:
    """Returns ``copy``, which needs no imports."""
    return copy


def copy(source: Path, output: Path, _: str, n_threads: int, copied_bytes: int) -> None:
    """Reads all of a file, writes ``copied_bytes`` of it and flushes them.

    Each thread has its share of both, in pieces, and writes a part of each piece that it has read:
    so does a converter.
    """
    size = source.stat().st_size

    def share(thread: int) -> None:
        buffer = memoryview(bytearray(_COPY_BYTES))
        for first in range(thread * _COPY_BYTES, size, n_threads * _COPY_BYTES):
            n = os.preadv(reading, [buffer], first)
            start = round(first * copied_bytes / size)
            stop = round((first + n) * copied_bytes / size)
            os.pwrite(writing, buffer[: stop - start], start)

    with open(source, "rb") as read, open(output, "wb") as written:
        reading, writing = read.fileno(), written.fileno()
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(share, range(n_threads)))
        os.fsync(writing)


CONTESTANTS: dict[str, Callable[[], Converter]] = {
    "edgeqwen": edgeqwen_converter,
    "llama.cpp": llama_cpp_converter,
    COPY: copier,
}


def main(who: str, source: str, output: str, type: str, n_threads: str, copied_bytes: str) -> None:
    """Converts, and prints as JSON what ``Run`` holds."""
    # Whatever a library prints goes to standard error; the answer keeps the pipe to itself.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    path = Path(output)
    times = [time.perf_counter()]
    convert = CONTESTANTS[who]()
    times.append(time.perf_counter())
    convert(Path(source), path, type, int(n_threads), int(copied_bytes))
    times.append(time.perf_counter())
    with open(path, "rb+") as written:
        os.fsync(written.fileno())
    times.append(time.perf_counter())
    import_s, seconds, flush_s = (end - begin for begin, end in pairwise(times))
    found = Run(import_s, seconds, flush_s, path.stat().st_size, peak_rss_bytes())
    answer.write(json.dumps(asdict(found)) + "\n")
    answer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
