"""Writes an encoder of a folder as the file that `embed.py --onnx` reads.

    pip install torch transformers onnx onnxruntime
    python benchmarks/embed_onnx.py FOLDER FILE

The graph is that of transformers, traced by PyTorch, with the fusions that onnxruntime has for BERT
(attention, bias and gelu, layer norm with its addend).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any


def trace(folder: Path, file: Path) -> Any:
    """Writes the plain graph, and returns the configuration of the model."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    tokens = torch.ones((2, 9), dtype=torch.int64)
    mask = torch.ones_like(tokens)
    mask[1, 5:] = 0
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "seq"} for name in (*names, "hidden")}
    torch.onnx.export(
        Hidden(),
        (tokens, mask),
        str(file),
        input_names=names,
        output_names=["hidden"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    return model.config


def main() -> None:
    from onnxruntime.transformers import optimizer

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "plain.onnx"
        config = trace(args.folder, plain)
        heads, width = config.num_attention_heads, config.hidden_size
        fused = optimizer.optimize_model(
            str(plain), model_type="bert", num_heads=heads, hidden_size=width, opt_level=1
        )
        print("fused:", {name: n for name, n in fused.get_fused_operator_statistics().items() if n})
        fused.save_model_to_file(str(args.file))


if __name__ == "__main__":
    main()
