"""Which tests a developer runs for which file; `mutate.py` runs them for each of its mutants."""

from __future__ import annotations

_C = "tests/compiler"
_CUDA = "tests/compiler/cuda"

GENERATE = {
    "maxmod/generate/sampling.py": ("tests/test_sampling.py", "tests/test_generate.py"),
    "maxmod/generate/decoding.py": ("tests/test_generate.py", "tests/test_sampling.py"),
    "maxmod/generate/kv_cache.py": ("tests/test_kv_cache.py", "tests/test_generate.py"),
    "maxmod/generate/chat.py": ("tests/test_chat.py",),
    "maxmod/generate/messages.py": ("tests/test_chat.py",),
    "maxmod/generate/template_environment.py": (
        "tests/test_chat.py",
        "tests/test_template_limits.py",
    ),
    "maxmod/generate/template_limits.py": ("tests/test_template_limits.py",),
    "maxmod/generate/encoding.py": ("tests/test_encoding.py",),
    "maxmod/generate/defaults.py": ("tests/test_generation_defaults.py",),
    "maxmod/generate/text.py": ("tests/test_text.py",),
    "maxmod/generate/special_tokens.py": ("tests/test_tokenizer_files.py",),
    "maxmod/generate/tokenizer_files.py": (
        "tests/test_tokenizer_files.py",
        "tests/test_text.py",
    ),
    "maxmod/generate/tokenizer_families.py": ("tests/test_tokenizer_files.py",),
    "maxmod/generate/sentence_pieces.py": ("tests/test_sentence_pieces.py",),
    "maxmod/generate/prompts.py": ("tests/test_generate.py",),
    "maxmod/generate/loop.py": (
        "tests/test_generate.py",
        "tests/test_text.py",
        "tests/test_chat.py",
    ),
}

_PASSES = (f"{_C}/test_passes.py", f"{_C}/test_golden.py")
_PLANNING = (
    f"{_C}/test_golden.py",
    f"{_C}/test_fusion.py",
    f"{_C}/test_siblings.py",
    f"{_C}/test_attention_choice.py",
    f"{_C}/test_templates.py",
    f"{_CUDA}/test_cuda_epilogues.py",
)
_TEXT = (
    f"{_C}/test_golden.py",
    f"{_C}/test_fusion.py",
    f"{_C}/test_gather.py",
    f"{_C}/test_stores.py",
    f"{_CUDA}/test_cuda_views.py",
    f"{_CUDA}/test_cuda_rows.py",
)
_GUARDED = f"{_C}/test_guarded_operands.py"
_SETS = "tests/kernels/test_instruction_sets.py"
_ATTENTION = (f"{_C}/test_attention_windows.py", f"{_C}/test_templates.py")
COMPILER = {
    "maxmod/compiler/passes/simplify.py": _PASSES,
    "maxmod/compiler/passes/fold_constants.py": _PASSES,
    "maxmod/compiler/passes/merge_common.py": _PASSES,
    "maxmod/compiler/passes/recognize_gelu.py": _PASSES,
    "maxmod/compiler/passes/expand_composites.py": _PASSES,
    "maxmod/compiler/passes/eliminate_dead.py": _PASSES,
    "maxmod/compiler/choose_kernels.py": (
        f"{_C}/test_choose_kernels.py",
        f"{_C}/test_attention_choice.py",
    ),
    "maxmod/compiler/groups/group.py": (f"{_C}/test_groups.py", *_PLANNING),
    "maxmod/compiler/fusion/plan.py": _PLANNING,
    "maxmod/compiler/fusion/conditions.py": _PLANNING,
    "maxmod/compiler/fusion/siblings.py": _PLANNING,
    "maxmod/compiler/fusion/attention.py": _PLANNING,
    "maxmod/compiler/fusion/contraction.py": _PLANNING,
    "maxmod/compiler/fusion/library.py": (f"{_CUDA}/test_cuda_epilogues.py",),
    "maxmod/compiler/groups/lower.py": _TEXT,
    "maxmod/compiler/codegen/element.py": _TEXT,
    "maxmod/compiler/codegen/emit.py": _TEXT,
    "maxmod/compiler/codegen/rows.py": _TEXT,
    "maxmod/compiler/codegen/host/blocks.py": _TEXT,
    "maxmod/compiler/codegen/host/loops.py": _TEXT,
    "maxmod/compiler/codegen/host/maps.py": _TEXT,
    "maxmod/compiler/codegen/host/row_loops.py": _TEXT,
    "maxmod/compiler/codegen/cuda/pointwise.py": _TEXT,
    "maxmod/compiler/codegen/cuda/rows.py": _TEXT,
    "maxmod/compiler/codegen/cuda/text.py": _TEXT,
    "maxmod/compiler/codegen/masks.py": (*_ATTENTION, f"{_CUDA}/test_cuda_attention.py"),
}

KERNELS = {
    "kernels/host/attention.h": (_GUARDED, *_ATTENTION),
    "kernels/host/tile.h": (_GUARDED, *_ATTENTION, f"{_C}/test_choose.py", _SETS),
    "kernels/host/gemm.h": (_GUARDED, f"{_C}/test_templates.py", _SETS),
    "kernels/host/gemm_operands.h": (_GUARDED, f"{_C}/test_templates.py", _SETS),
    "kernels/host/gemm_few.h": (_GUARDED, f"{_C}/test_templates.py", _SETS),
    "kernels/host/gemm_panels.h": (_GUARDED, f"{_C}/test_templates.py", _SETS),
    "kernels/host/gemm_many.h": (_GUARDED, f"{_C}/test_templates.py", _SETS),
    "kernels/host/gemm_narrow.h": (_GUARDED, f"{_C}/test_batched_products.py", _SETS),
    "kernels/host/quantized.h": (_GUARDED, "tests/ops/test_quantized.py", _SETS),
    "kernels/host/quantized_few.h": (_GUARDED, "tests/ops/test_quantized.py", _SETS),
    "kernels/host/quantized_many.h": (_GUARDED, "tests/ops/test_quantized.py", _SETS),
    "kernels/host/choose.h": (_GUARDED, f"{_C}/test_choose.py", "tests/test_sampling.py"),
    "kernels/shared/choose.h": (f"{_C}/test_choose.py", "tests/test_sampling.py"),
    "kernels/cuda/attention_few.h": (_ATTENTION[0], f"{_CUDA}/test_cuda_attention.py"),
    "kernels/cuda/attention_many.h": (_ATTENTION[0], f"{_CUDA}/test_cuda_attention.py"),
    "kernels/cuda/attention_mma.h": (_ATTENTION[0], f"{_CUDA}/test_cuda_attention.py"),
    "kernels/cuda/gemv.h": (f"{_CUDA}/test_cuda_gemv.py", f"{_CUDA}/test_cuda_quantized.py"),
    "kernels/cuda/mma.h": (f"{_CUDA}/test_cuda_mma.py",),
    "kernels/cuda/quantized.h": (f"{_CUDA}/test_cuda_quantized.py",),
    "kernels/cuda/choose.h": (f"{_C}/test_choose.py",),
}

AREAS = {"generate": GENERATE, "compiler": COMPILER, "kernels": KERNELS}
