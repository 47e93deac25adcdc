"""The inner loop of a product for 64-bit ARM, compiled on any machine, without running it."""

import llvmlite.binding as llvm
from llvmlite import ir

from edgeqwen.formats import Tiling
from edgeqwen.formats.base import Place
from edgeqwen.simd.emitter import Emitter

TRIPLE = "aarch64-unknown-linux-gnu"


def loop(tiling: Tiling) -> ir.Module:
    """Returns f(tile, panel, n_blocks, out): a product's micro-kernel over blocks of a tile.

    Where it takes many tokens, the tile is an unpacked one.
    """
    module = ir.Module()
    module.triple = TRIPLE
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 4), "f")
    tile, panel, n_blocks, out = function.args
    format_, many = tiling.format, tiling.n_tokens > 1
    header, block_bytes = format_.header_bytes, format_.block_bytes
    if many:
        header, block_bytes = 0, tiling.unpacked_bytes
    entry, body, end = (function.append_basic_block(name) for name in ("entry", "body", "end"))
    builder = ir.IRBuilder(entry)
    e = Emitter(builder, tiling.isa)
    first_block = e.at(tile, header)
    builder.branch(body)
    builder.position_at_end(body)
    n_totals = tiling.n_parts * tiling.n_tokens
    index, block_at, panel_at = (builder.phi(ir.IntType(64)) for _ in range(3))
    totals = [builder.phi(e.f32v) for _ in range(n_totals)]
    rows = [e.i64(part * tiling.isa.lanes) for part in range(tiling.n_parts)]
    if many:
        results = format_.emit_many(e, tiling, block_at, panel_at, list(totals))
    else:
        place = Place(tile, block_at)
        results = format_.emit_one(e, tiling, place, rows, panel_at, list(totals))
    next_index = builder.add(index, ir.IntType(64)(1))
    for phi, first, following in (
        (index, ir.IntType(64)(0), next_index),
        (block_at, first_block, builder.add(block_at, ir.IntType(64)(block_bytes))),
        (panel_at, panel, builder.add(panel_at, ir.IntType(64)(tiling.step_bytes))),
        *zip(totals, [e.zero(e.f32v)] * n_totals, results, strict=True),
    ):
        phi.add_incoming(first, entry)
        phi.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", next_index, n_blocks), body, end)
    builder.position_at_end(end)
    for i, result in enumerate(results):
        e.store(result, out, 4 * tiling.isa.lanes * i)
    builder.ret_void()
    return module


def assembly(module: ir.Module, cpu: str, features: str) -> str:
    """Compiles a module. Raises RuntimeError where llvmlite was built without ARM."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(TRIPLE)
    machine = target.create_target_machine(cpu=cpu, features=features, opt=3)
    compiled = llvm.parse_assembly(str(module))
    compiled.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(3))
    passes.getModulePassManager().run(compiled, passes)
    found: str = machine.emit_assembly(compiled)
    return found
