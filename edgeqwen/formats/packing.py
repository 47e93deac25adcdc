"""Packing: rows of GGUF blocks into tiles, one template for all formats."""

import mmap

import numpy as np
from numpy.typing import NDArray

from edgeqwen.formats.base import TILE_ROWS, Format
from edgeqwen.simd.atomics import atomic_add, atomic_load
from edgeqwen.simd.compile import kernel, token_method
from edgeqwen.simd.memory import populate_to_read, populate_to_write, prefetch, release_pages
from edgeqwen.simd.ops import constant, poke_i64
from edgeqwen.simd.records import record, record_view

_tile_bytes = constant(lambda t: t.value.tile_bytes)
_tile_row_bytes = constant(lambda t: t.value.tile_row_bytes)
_pack_row = token_method(Format.pack_row)
_pack_row_apart = token_method(Format.pack_row_apart)
_apart_tile_bytes = constant(lambda t: t.value.apart_tile_bytes)

# A thread packs so many source bytes at a time.
JOB_BYTES = 1 << 19
# So many are given up at a time.
RELEASE_BYTES = 16 << 20
LINE_BYTES = 64

JOB = record(
    "source",  # a matrix as a GGUF has it: n_rows rows of row_tiles * tile_row_bytes bytes
    "n_rows",
    "row_tiles",  # tiles side by side
    "tiles",  # uint8 [ceil(n_rows / 16)][row_tiles][tile_bytes]
    "apart",  # behind what the format keeps apart, in reverse order of the tiles; mostly ``tiles``
    "first",  # rows of tiles to pack: [first, last)
    "last",
    "release_first",  # source bytes [release_first, release_last) that need no memory any more
    "release_last",
)
job_view = record_view(JOB)
_job_bytes = JOB.itemsize

PACK = record(
    "jobs",  # JOB [chunks]
    "table",  # address of ``Format.table()``, or 0
    "done",  # int64: source bytes packed so far
    "stop",  # int64: if it isn't 0, nothing more is done
    "page_bytes",  # of source and tiles, if the source's pages may be given up when read; or else 0
)
pack_view = record_view(PACK)


@kernel
def pack_tiles(format_, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Does one job: rows of GGUF blocks become rows of tiles."""
    a = pack_view(args)
    if atomic_load(a.stop) != 0:
        return
    job = job_view(a.jobs + chunk * _job_bytes)
    n_rows, row_tiles = job.n_rows, job.row_tiles
    row_bytes = row_tiles * _tile_row_bytes(format_)
    start = job.source + job.first * TILE_ROWS * row_bytes
    end = job.source + min(job.last * TILE_ROWS, n_rows) * row_bytes
    if a.page_bytes != 0:
        page = start // a.page_bytes * a.page_bytes
        populate_to_read(page, end - page)
        row_of_tiles = row_tiles * _tile_bytes(format_)
        page = (job.tiles + job.first * row_of_tiles) // a.page_bytes * a.page_bytes
        populate_to_write(page, job.tiles + job.last * row_of_tiles - page)
    for i in range(job.first, job.last):
        for k in range(row_tiles):
            index = i * row_tiles + k
            tile = job.tiles + index * _tile_bytes(format_)
            apart = job.apart - (index + 1) * _apart_tile_bytes(format_)
            # 16 rows are 16 streams, too many for the processor to foresee. The next ones are asked
            # for in the order of memory.
            ahead = job.source + ((i + 1) * row_tiles + k) * (TILE_ROWS * _tile_row_bytes(format_))
            for offset in range(0, TILE_ROWS * _tile_row_bytes(format_), LINE_BYTES):
                prefetch(ahead + offset)
            if (i + 1) * TILE_ROWS > n_rows:
                for offset in range(0, _tile_bytes(format_), 8):
                    poke_i64(tile + offset, 0)
                for offset in range(0, _apart_tile_bytes(format_), 8):
                    poke_i64(apart + offset, 0)
            for r in range(min(TILE_ROWS, n_rows - i * TILE_ROWS)):
                row = i * TILE_ROWS + r
                block = job.source + row * row_bytes + k * _tile_row_bytes(format_)
                _pack_row(format_, block, tile, r, a.table)
                _pack_row_apart(format_, block, apart, r)
    atomic_add(a.done, end - start)
    if a.page_bytes != 0:
        # Only whole pages: neighbours may still be read, or belong to somebody else.
        first = (job.release_first + a.page_bytes - 1) // a.page_bytes * a.page_bytes
        last = job.release_last // a.page_bytes * a.page_bytes
        if last > first:
            release_pages(first, last - first)


def pack_jobs(
    format_: Format, source: NDArray[np.uint8], n_rows: int, tiles: int
) -> NDArray[np.void]:
    """Returns the jobs, JOB [n], that pack a matrix to tiles at an address.

    source: the matrix as the file has it, ``n_rows`` rows of whole tiles' bytes.
    """
    row_bytes = source.nbytes // n_rows
    row_tiles, rest = divmod(row_bytes, format_.tile_row_bytes)
    if rest or row_bytes * n_rows != source.nbytes or not source.flags.c_contiguous:
        raise AssertionError(f"{format_.name}: {source.nbytes} bytes aren't {n_rows} rows of tiles")
    n_tiles = -(-n_rows // TILE_ROWS)
    step = max(1, JOB_BYTES // (TILE_ROWS * row_bytes))
    jobs = np.zeros(-(-n_tiles // step), JOB)
    jobs["source"], jobs["n_rows"] = source.ctypes.data, n_rows
    jobs["row_tiles"], jobs["tiles"], jobs["apart"] = row_tiles, tiles, tiles
    jobs["first"] = np.arange(0, n_tiles, step)
    jobs["last"] = np.minimum(jobs["first"] + step, n_tiles)
    return jobs


def with_releases(format_: Format, jobs: NDArray[np.void]) -> NDArray[np.void]:
    """Returns jobs, JOB [n], in the order of their source, that give its memory up when it is read.

    That stops all threads for a moment, so it is done for a stretch of jobs at once. (One of them
    may still be at work: it finds what it reads in the file again.)
    """
    rows = np.minimum(jobs["last"] * TILE_ROWS, jobs["n_rows"])
    row_bytes = jobs["row_tiles"] * format_.tile_row_bytes
    starts = jobs["source"] + jobs["first"] * TILE_ROWS * row_bytes
    ends = jobs["source"] + rows * row_bytes
    order = np.argsort(starts)
    jobs, first, last = jobs[order], starts[order].tolist(), ends[order].tolist()
    begin = first[0]
    for i, end in enumerate(last):
        # Tensors lie side by side; behind a gap is another file, or anybody's memory.
        follows = i + 1 < len(last) and 0 <= first[i + 1] - end < mmap.PAGESIZE
        if not follows or end - begin >= RELEASE_BYTES:
            jobs["release_first"][i], jobs["release_last"][i] = begin, end
            begin = first[i + 1] if i + 1 < len(last) else end
    return jobs


def pack_rows(
    format_: Format,
    source: NDArray[np.uint8],
    n_rows: int,
    first: int,
    last: int,
    apart: NDArray[np.uint8],
    tiles: NDArray[np.uint8],
) -> None:
    """Packs rows of tiles [first, last) of a matrix into ``tiles``, uint8, of just their bytes.

    What the format keeps apart of them goes into ``apart``, of just its bytes.
    """
    jobs = pack_jobs(format_, source, n_rows, 0)[:1]
    row_tiles = int(jobs["row_tiles"][0])
    row_bytes, apart_row_bytes = (
        row_tiles * n for n in (format_.tile_bytes, format_.apart_tile_bytes)
    )
    is_range = 0 <= first < last <= -(-n_rows // TILE_ROWS)
    sizes = (last - first) * row_bytes, (last - first) * apart_row_bytes
    if not is_range or (tiles.nbytes, apart.nbytes) != sizes:
        raise AssertionError(f"{format_.name}: {tiles.nbytes} bytes for tiles {first} to {last}")
    jobs["tiles"] = tiles.ctypes.data - first * row_bytes
    jobs["apart"] = apart.ctypes.data + last * apart_row_bytes
    jobs["first"], jobs["last"] = first, last
    flags, table = np.zeros(2, np.int64), format_.table()
    arguments = np.zeros(1, PACK)
    arguments["jobs"], arguments["done"] = jobs.ctypes.data, flags.ctypes.data
    arguments["stop"] = flags[1:].ctypes.data
    arguments["table"] = 0 if table is None else table.ctypes.data
    pack_tiles(format_, arguments.ctypes.data, 0, 0)


def releasable_page_bytes() -> int:
    """Returns the size of the pages that ``pack_tiles`` may give up, or 0 where it can't."""
    return mmap.PAGESIZE if hasattr(mmap, "MADV_DONTNEED") else 0
