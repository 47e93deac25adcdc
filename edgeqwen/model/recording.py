"""The operations of the network, each with its kernel and the kernel's arguments.

Shapes: x [n_tokens][hidden_size] is the residual stream; q, k and v stand side by side for each
token, gate and up too. Between two products, activations go through panels, in the form that the
next product's format reads (see ``edgeqwen.formats.base``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeqwen.executor import Call, Tape
from edgeqwen.formats.base import Format, Tiling
from edgeqwen.formats.panel import Panel
from edgeqwen.kernels.attention import (
    ATTENTION,
    UNIT,
    Merging,
    attention_many,
    attention_merge,
    attention_one,
)
from edgeqwen.kernels.embed import EMBED, embed
from edgeqwen.kernels.gated import GATED, TILES_OF_BLOCK, Gated, gated_gemm, gated_gemv
from edgeqwen.kernels.gemm import gemm, scratch_bytes
from edgeqwen.kernels.gemv import gemv
from edgeqwen.kernels.norm import NORM, norm
from edgeqwen.kernels.panels import PANELIZE, panelize
from edgeqwen.kernels.products import PRODUCT
from edgeqwen.kernels.rope import ANGLES, ROPE, angles, rope
from edgeqwen.kernels.swiglu import SWIGLU, swiglu
from edgeqwen.model.buffers import Buffers
from edgeqwen.model.chunks import tiles_per_chunk
from edgeqwen.model.weights import Matrix

if TYPE_CHECKING:
    from edgeqwen.model.qwen2 import Recorder

SWIGLU_BLOCKS = 16


def bits(x: float) -> int:
    """Returns the bits of a float32, as argument records hold them."""
    return int(np.float32(x).view(np.uint32))


@dataclass(frozen=True, slots=True)
class Normed:
    """Activations after a norm, in panels; of each thread, where a prologue computes them."""

    panel: Panel
    prologue: Call | None = None


class Recording:
    """The operations of one tape under way."""

    def __init__(self, recorder: "Recorder", buffers: Buffers, one_token: bool) -> None:
        self.r, self.buffers, self.one_token = recorder, buffers, one_token
        self.tape = Tape()
        self.shape = recorder.attention_shape(one_token)
        self.state = recorder.state.ctypes.data
        # For a softmax in base 2.
        self.q_scale = bits(math.log2(math.e) / math.sqrt(recorder.config.head_dim))
        self.strides = {
            "x": 4 * recorder.config.hidden_size,
            "qkv": buffers.qkv_stride,
            "gate_up": buffers.gate_up_stride,
            "logits": buffers.logits_stride,
        }

    def tiling(self, format_: Format) -> Tiling:
        isa = self.r.isa
        return format_.gemv_tiling(isa) if self.one_token else format_.gemm_tiling(isa)

    def embed(self, matrix: Matrix) -> None:
        """x = the embeddings of the step's tokens."""
        arguments = {
            "state": self.state,
            "weights": matrix.address,
            "n_blocks": matrix.n_blocks,
            "x": self.buffers["x"],
        }
        token = matrix.format.gemv_tiling(self.r.isa)
        self.tape.add(embed, token, EMBED, arguments, tokens_per_chunk=1)

    def angles(self) -> None:
        """The cosines and sines of the step's positions, the same for all layers."""
        arguments = {
            "state": self.state,
            "frequencies": self.r.frequencies.ctypes.data,
            "scale": bits(self.r.rope_factor),
            "angles": self.buffers["angles"],
        }
        self.tape.add(angles, self.shape, ANGLES, arguments, tokens_per_chunk=1)

    def norm_and_multiply(
        self,
        weight: np.ndarray[Any, Any],
        matrices: Sequence[Matrix],
        output: str,
        bias: np.ndarray[Any, Any] | None = None,
    ) -> None:
        """output = rms_norm(x) * weight, times each matrix, plus the bias."""
        normed: Normed | None = None
        for matrix in matrices:
            # Each run of tensors has a format of its own, which may read panels of its own.
            panel = self.tiling(matrix.format).panel
            if normed is None or normed.panel != panel:
                normed = self.norm(weight, matrix, panel)
            self.multiply(matrix, output, normed=normed, bias=bias)

    def norm(
        self,
        weight: np.ndarray[Any, Any],
        matrix: Matrix,
        panel: Panel,
        *,
        last_only: bool = False,
    ) -> Normed:
        """rms_norm(x) * weight, of all tokens or the last, for products with ``panel``.

        What one token needs is computed by every thread for itself, before its first chunk of
        the product: waiting for another to do it would take longer.
        """
        if panel.n_tokens > 1:
            self.shared_norm(weight, matrix, panel)
            return Normed(panel)
        own = {
            "normed": self.buffers["worker_normed"],
            "panels": self.buffers["worker_panels"],
            "last_only": int(last_only),
            "worker_bytes": self.buffers.worker_bytes,
        }
        return Normed(panel, Call.of(norm, panel, NORM, self._norm(weight, matrix) | own))

    def shared_norm(self, weight: np.ndarray[Any, Any], matrix: Matrix, panel: Panel) -> None:
        """Adds the norm of all tokens, into panels that all threads read."""
        arguments = self._norm(weight, matrix)
        self.tape.add(norm, panel, NORM, arguments, tokens_per_chunk=panel.n_tokens)

    def _norm(self, weight: np.ndarray[Any, Any], matrix: Matrix) -> dict[str, int]:
        return {
            "state": self.state,
            "x": self.buffers["x"],
            "n_blocks": matrix.n_blocks,
            "weight": weight.ctypes.data,
            "epsilon": bits(self.r.config.rms_norm_eps),
            "normed": self.buffers["normed"],
            "panels": self.buffers["panels"],
            "last_only": 0,
            "worker_bytes": 0,
        }

    def feed_forward(
        self, weight: np.ndarray[Any, Any], gate_up: Sequence[Matrix], down_proj: Matrix
    ) -> None:
        """hidden = silu(gate) * up of rms_norm(x) * weight."""
        if len(gate_up) > 1:
            self.norm_and_multiply(weight, gate_up, "gate_up")
            self.swiglu(down_proj)
            return
        matrix = gate_up[0]
        token = Gated(self.tiling(matrix.format), self.tiling(down_proj.format).panel)
        normed = self.norm(weight, matrix, token.tiling.panel)
        n_tiles = matrix.n_tiles // 2
        per_chunk = tiles_per_chunk(matrix, token.tiling, self.r.n_threads, ranges=2)
        per_chunk = -(-per_chunk // TILES_OF_BLOCK) * TILES_OF_BLOCK
        arguments = self._product(matrix, token.tiling, "gate_up", 2 * per_chunk, normed) | {
            "n_tiles": n_tiles,
            "ranges": 2,
            "tiles_per_chunk": per_chunk,
            "up_offset": 4 * self.r.config.intermediate_size,
            "hidden": self.buffers["hidden"],
            "hidden_blocks": down_proj.n_blocks,
        }
        self.tape.add(
            gated_gemv if self.one_token else gated_gemm,
            token,
            GATED,
            arguments,
            chunks=-(-n_tiles // per_chunk),
            prologue=normed.prologue,
            name="gated product",
        )

    def multiply(
        self,
        matrix: Matrix,
        output: str,
        *,
        panels: str = "panels",
        normed: Normed | None = None,
        bias: np.ndarray[Any, Any] | None = None,
        accumulate: bool = False,
        last_only: bool = False,
    ) -> None:
        """output[matrix.row:] (+)= matrix * panels + bias; ``normed`` panels, if it is given."""
        format_ = matrix.format
        tiling = format_.gemv_tiling(self.r.isa) if last_only else self.tiling(format_)
        state = self.r.last_state if last_only else self.r.state
        per_chunk = tiles_per_chunk(matrix, tiling, self.r.n_threads)
        arguments = self._product(matrix, tiling, output, per_chunk, normed, panels) | {
            "state": state.ctypes.data,
            "bias": 0 if bias is None else bias.ctypes.data + 4 * matrix.row,
            "accumulate": int(accumulate),
        }
        self.tape.add(
            gemv if tiling.n_tokens == 1 else gemm,
            tiling,
            PRODUCT,
            arguments,
            chunks=-(-matrix.n_tiles // per_chunk),
            prologue=normed.prologue if normed else None,
            name=f"{output} product",
        )

    def _product(
        self,
        matrix: Matrix,
        tiling: Tiling,
        output: str,
        per_chunk: int,
        normed: Normed | None,
        panels: str = "panels",
    ) -> dict[str, int]:
        """Returns the arguments of a product without bias or residual."""
        needed = scratch_bytes(tiling, matrix.n_blocks, per_chunk, self.buffers.max_tokens)
        if needed > self.buffers.scratch_bytes:
            raise AssertionError(f"{output}: {needed} bytes of scratch memory, planned fewer")
        of_worker = normed is not None and normed.prologue is not None
        return {
            "state": self.state,
            "weights": matrix.address,
            "n_blocks": matrix.n_blocks,
            "n_tiles": matrix.n_tiles,
            "ranges": 1,
            "tiles_per_chunk": per_chunk,
            "panels": self.buffers["worker_panels" if of_worker else panels],
            "panels_of_worker": self.buffers.worker_bytes if of_worker else 0,
            "output": self.buffers[output] + 4 * matrix.row,
            "stride": self.strides[output],
            "bias": 0,
            "accumulate": 0,
            "scratch": self.buffers["scratch"],
            "scratch_bytes": self.buffers.scratch_bytes,
        }

    def _rope(self, i: int) -> None:
        """q and k are rotated; k and v enter the cache."""
        config, layout = self.r.config, self.r.layout
        arguments = {
            "state": self.state,
            "angles": self.buffers["angles"],
            "qkv": self.buffers["qkv"],
            "stride": self.buffers.qkv_stride,
            "n_kv_heads": config.n_kv_heads,
            "q_scale": self.q_scale,
            "layer": i * layout.layer_bytes,
            "head_bytes": layout.head_bytes,
            "v_offset": layout.v_offset,
            "biases": self.r.key_biases.subtracted(i),
        }
        self.tape.add(rope, self.shape, ROPE, arguments, tokens_per_chunk=1)

    def attention(self, i: int, o_proj: Matrix) -> None:
        """panels = softmax(q k) v, for all positions in the cache, which the step's own enter."""
        config, layout, buffers = self.r.config, self.r.layout, self.buffers
        arguments = {
            "state": self.state,
            "q": buffers["qkv"],
            "stride": buffers.qkv_stride,
            "angles": buffers["angles"],
            "q_scale": self.q_scale,
            "layer": i * layout.layer_bytes,
            "head_bytes": layout.head_bytes,
            "v_offset": layout.v_offset,
            "n_kv_heads": config.n_kv_heads,
            "biases": self.r.key_biases.subtracted(i),
            "pairs": self.r.key_biases.pairs(i),
            "scratch": buffers["scratch"],
            "scratch_bytes": buffers.scratch_bytes,
            "partials": buffers["partials"],
            "output": buffers["attention"],
            "panels": buffers["panels"],
        }
        heads = config.n_kv_heads
        if self.one_token:
            self.tape.add(
                attention_one,
                self.shape,
                ATTENTION,
                arguments,
                chunks=heads,
                positions_per_chunk=UNIT,
            )
            merging = Merging(self.shape, self.tiling(o_proj.format).panel)
            self.tape.add(attention_merge, merging, ATTENTION, arguments, chunks=config.n_heads)
        else:
            self._rope(i)
            self.tape.add(
                attention_many,
                self.shape,
                ATTENTION,
                arguments,
                chunks=heads,
                tokens_per_chunk=self.shape.tokens,
            )
            self._panelize(o_proj)

    def _panelize(self, matrix: Matrix) -> None:
        """panels = the output of attention."""
        panel = self.tiling(matrix.format).panel
        arguments = {
            "state": self.state,
            "x": self.buffers["attention"],
            "n_blocks": matrix.n_blocks,
            "panels": self.buffers["panels"],
        }
        self.tape.add(panelize, panel, PANELIZE, arguments, tokens_per_chunk=panel.n_tokens)

    def swiglu(self, down_proj: Matrix) -> None:
        """hidden = silu(gate) * up."""
        parts = -(-down_proj.n_blocks // SWIGLU_BLOCKS)
        panel = self.tiling(down_proj.format).panel
        arguments = {
            "state": self.state,
            "gate_up": self.buffers["gate_up"],
            "stride": self.buffers.gate_up_stride,
            "up_offset": 4 * self.r.config.intermediate_size,
            "n_blocks": down_proj.n_blocks,
            "blocks_per_chunk": SWIGLU_BLOCKS,
            "chunks_per_panel": parts,
            "panels": self.buffers["hidden"],
        }
        self.tape.add(
            swiglu,
            panel,
            SWIGLU,
            arguments,
            chunks=parts,
            tokens_per_chunk=panel.n_tokens,
        )

    def logits(self, weight: np.ndarray[Any, Any], head: Matrix, last_only: bool) -> None:
        """logits = rms_norm(x) * weight, times the head, for all tokens or the last."""
        format_ = head.format
        tiling = format_.gemv_tiling(self.r.isa) if last_only else self.tiling(format_)
        normed = self.norm(weight, head, tiling.panel, last_only=last_only)
        self.multiply(head, "logits", normed=normed, last_only=last_only)
