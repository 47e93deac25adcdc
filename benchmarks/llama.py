"""A thin wrapper over llama.cpp's C interface, for comparisons: explicit errors, no chatter.

Needs llama-cpp-python (the ``peers`` extra). The high-level class of that package copies every
logit and so loses time; here ``llama_decode`` is called directly.
"""

import collections
import ctypes
import importlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

# Untyped on purpose: it need not be installed where this file is checked.
llama_cpp: Any = importlib.import_module("llama_cpp")

_F32 = 0  # enum ggml_type
_LOG_WARNING, _LOG_ERROR = 3, 4  # enum ggml_log_level counts debug 1, info 2, warn 3, error 4

# The last complaints of the library; it returns null or a number and says the reason only here.
_complaints: collections.deque[str] = collections.deque(maxlen=8)


def _record(level: int, text: bytes, _: Any) -> None:
    if level in (_LOG_WARNING, _LOG_ERROR):
        _complaints.append(text.decode(errors="replace").strip())


_log = llama_cpp.llama_log_callback(_record)  # kept alive: the library holds its address
llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))


class LlamaError(RuntimeError):
    """llama.cpp refused something; the message carries what it logged last."""

    def __init__(self, what: str) -> None:
        super().__init__(": ".join([what, *(" | ".join(_complaints),) * bool(_complaints)]))


class LlamaCpp:
    """A model and one sequence in llama.cpp, on the CPU alone."""

    def __init__(
        self,
        path: str | Path,
        *,
        n_threads: int = 2,
        n_context: int = 512,
        n_batch: int = 512,
        all_logits: bool = False,
        repack: bool = False,
        float_cache: bool = False,
    ) -> None:
        """Loads a GGUF file. ``all_logits`` reserves room for a row of logits per token.

        ``float_cache`` keeps keys and values as float32 instead of float16, and computes with them.
        ``repack`` lets llama.cpp lay weights out for its fastest kernels, as it does by itself; on
        CPUs with AMX, those crash at some shapes (0.3.36).
        """
        _complaints.clear()
        self._model: Any = None
        self._context: Any = None
        self._batch: Any = None
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        parameters.use_extra_bufts = repack
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise LlamaError(f"llama.cpp can't load {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocab_size = int(llama_cpp.llama_vocab_n_tokens(self.vocab))
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = n_context
        parameters.n_batch = parameters.n_ubatch = n_batch
        parameters.n_threads = parameters.n_threads_batch = n_threads
        if float_cache:
            parameters.type_k = parameters.type_v = _F32
            parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if all_logits:
            parameters.n_outputs_max = parameters.n_outputs_max_per_seq = n_batch
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            self.close()
            raise LlamaError(f"llama.cpp can't make a context of {n_context} tokens for {path}")
        self._n_batch = n_batch
        self._batch = llama_cpp.llama_batch_init(n_batch, 0, 1)
        self.n_tokens = 0

    def tokenize(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Returns the ids of a text, without any token added at its ends."""
        data = text.encode()
        n = len(data) + 8
        ids = (llama_cpp.llama_token * n)()
        n = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, n, False, allow_special)
        if n < 0:
            raise LlamaError(f"llama.cpp wants {-n} tokens for {len(data)} bytes of text")
        return list(ids[:n])

    def piece(self, token: int) -> str:
        """Returns a token's text; special tokens have theirs, too."""
        text = ctypes.create_string_buffer(256)
        n = llama_cpp.llama_token_to_piece(self.vocab, token, text, len(text), 0, True)
        if n < 0:
            raise LlamaError(f"llama.cpp wants {-n} bytes for the text of token {token}")
        return text.raw[:n].decode(errors="replace")

    def decode(self, tokens: Sequence[int], *, all_logits: bool = False) -> np.ndarray:
        """Appends tokens; returns float32 logits [1 or n_tokens, vocab_size] of the last or all.

        A single row is the library's own memory, valid until the next call; many are a copy.
        """
        rows = []
        for start in range(0, len(tokens), self._n_batch):
            part = np.asarray(tokens[start : start + self._n_batch], np.int32)
            last = start + len(part) == len(tokens)
            self._decode_batch(part, all_logits=all_logits, last_logits=last)
            if all_logits:
                rows.append(self._logits(0, len(part)).copy())
        return np.concatenate(rows) if all_logits else self._logits(-1, 1)

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Returns float32 logits [n_tokens, vocab_size] of tokens read from an empty cache."""
        self.truncate(0)
        return self.decode(tokens, all_logits=True)

    def truncate(self, n_tokens: int) -> None:
        """Forgets all but the first ``n_tokens`` tokens."""
        memory = llama_cpp.llama_get_memory(self._context)
        if not llama_cpp.llama_memory_seq_rm(memory, 0, n_tokens, -1):
            raise LlamaError(f"llama.cpp can't cut its cache to {n_tokens} tokens")
        self.n_tokens = n_tokens

    def close(self) -> None:
        """Frees everything; the object can't be used afterwards."""
        if self._batch is not None:
            llama_cpp.llama_batch_free(self._batch)
        if self._context:
            llama_cpp.llama_free(self._context)
        if self._model:
            llama_cpp.llama_model_free(self._model)
        self._model = self._context = self._batch = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _decode_batch(self, part: np.ndarray, *, all_logits: bool, last_logits: bool) -> None:
        batch, n = self._batch, len(part)
        batch.n_tokens = n

        def field(name: str) -> np.ndarray:
            return np.ctypeslib.as_array(getattr(batch, name), (n,))

        field("token")[:] = part
        field("pos")[:] = np.arange(self.n_tokens, self.n_tokens + n)
        field("n_seq_id")[:] = 1
        field("logits")[:] = all_logits
        field("logits")[-1] = all_logits or last_logits
        for i in range(n):
            batch.seq_id[i][0] = 0
        _complaints.clear()
        code = llama_cpp.llama_decode(self._context, batch)
        if code != 0:
            raise LlamaError(f"llama_decode of {n} tokens at {self.n_tokens} returned {code}")
        self.n_tokens += n

    def _logits(self, row: int, n_rows: int) -> np.ndarray:
        pointer = llama_cpp.llama_get_logits_ith(self._context, row)
        if not pointer:
            raise LlamaError(f"llama.cpp kept no logits for row {row} of the last batch")
        return np.ctypeslib.as_array(pointer, (n_rows, self.vocab_size))


def quantize(source: str | Path, output: str | Path, type: str, *, n_threads: int = 2) -> None:
    """Converts a GGUF file to another type, as llama-quantize names them, with its own encoder."""
    _complaints.clear()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = n_threads
    name = "ALL_F32" if type == "f32" else f"MOSTLY_{type.upper()}"
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{name}")
    code = llama_cpp.llama_model_quantize(
        str(source).encode(), str(output).encode(), ctypes.byref(parameters)
    )
    if code != 0:
        raise LlamaError(f"llama.cpp can't quantize {source} to {type} (code {code})")


def system_info() -> str:
    """Returns the instruction sets and features that this build of llama.cpp uses."""
    text: bytes = llama_cpp.llama_print_system_info()
    return text.decode().strip(" |\n")
