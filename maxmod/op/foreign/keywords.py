"""Keywords of PyTorch's and NumPy's functions, with what to write here."""

from __future__ import annotations

# By function and keyword; "" stands for every function, "*" for arguments without a keyword.
KEYWORDS: dict[tuple[str, str], str] = {
    ("", "out"): "results are new tensors: y = F.sum(x), or F.buffer_store(y, F.sum(x)). "
    "np.sum(x) passes out=, and np.sum(x.to_numpy()) works",
    ("", "dtype"): "cast the operand or the result: F.sum(x.cast(DType.float32))",
    ("", "where"): "select first: F.sum(F.where(mask, x, 0))",
    ("", "initial"): "F.max(F.max(x, axis=-1), 0) bounds the result",
    ("", "inplace"): "results are new tensors: x = F.relu(x)",
    ("", "training"): "there is no training, leave it out",
    ("", "requires_grad"): "there are no gradients, leave it out",
    ("", "memory_format"): "layouts are arguments of F.conv2d, leave it out",
    ("", "non_blocking"): "leave it out",
    ("", "copy"): "results are new tensors, leave it out",
    ("", "order"): "elements are in row-major order, leave it out",
    ("", "in_features"): "the size is called in_dim: nn.Linear(3, 2)",
    ("", "out_features"): "the size is called out_dim: nn.Linear(3, 2)",
    ("", "num_embeddings"): "the size is called vocab_size: nn.Embedding(10, dim=4)",
    ("", "embedding_dim"): "the size is called dim: nn.Embedding(10, dim=4)",
    ("", "normalized_shape"): "the size is called dim: nn.LayerNorm(4)",
    ("", "groups"): "the number is called num_groups: nn.Conv2d(3, 4, 8, num_groups=2)",
    ("zeros", "*"): "sizes are one list: Tensor.zeros([2, 3])",
    ("ones", "*"): "sizes are one list: Tensor.ones([2, 3])",
    ("full", "*"): "sizes are one list: Tensor.full([2, 3], 1.0)",
    ("reshape", "*"): "sizes are one list: F.reshape(x, [2, 3])",
    ("permute", "*"): "axes are one list: F.permute(x, [1, 0])",
    ("squeeze", "*"): "name the axis: x.squeeze(0)",
    ("sum", "*"): "several axes are one tuple: x.sum(axis=(0, 1))",
    ("mean", "*"): "several axes are one tuple: x.mean(axis=(0, 1))",
    ("item", "*"): "x[0, 0].item()",
    ("Conv2d", "bias"): "it is called has_bias: nn.Conv2d(3, 4, 8, has_bias=True)",
    ("Embedding", "*"): "the width is a keyword: nn.Embedding(10, dim=4)",
    ("Linear", "*"): "sizes are in_dim and out_dim, bias is a keyword: nn.Linear(3, 2, bias=False)",
    ("Conv2d", "*"): "kernel size comes first: nn.Conv2d(3, in_channels=4, out_channels=8)",
    ("Conv2d", "padding_mode"): "pad first: F.pad(x, [0, 0, 1, 1, 1, 1, 0, 0], mode='reflect')",
    ("Embedding", "padding_idx"): "it only matters for training, leave it out",
    ("LayerNorm", "bias"): "it is called use_bias: nn.LayerNorm(4, use_bias=False)",
    ("RMSNorm", "elementwise_affine"): "an RMSNorm has a weight: nn.RMSNorm(4)",
    ("scaled_dot_product_attention", "attn_mask"): "it is called mask: "
    "F.scaled_dot_product_attention(q, k, v, mask=mask)",
    ("scaled_dot_product_attention", "dropout_p"): "there is no dropout, leave it out",
    ("scaled_dot_product_attention", "enable_gqa"): "heads are shared where their numbers differ, "
    "leave it out",
    ("argsort", "descending"): "F.argsort(x, ascending=False)",
    ("argsort", "stable"): "F.argsort is stable, leave it out",
    ("top_k", "largest"): "F.bottom_k(x, 2) has the smallest",
    ("top_k", "sorted"): "they are sorted, leave it out",
    ("clamp", "min"): "x.clip(min=0)",
    ("clamp", "max"): "x.clip(max=1)",
    ("einsum", "optimize"): "operands are combined from left to right, leave it out",
    ("linspace", "steps"): "the number is called num: F.linspace(0, 1, 5)",
    ("linspace", "endpoint"): "F.linspace(0, 1, 5) has both ends, F.arange(5) / 5 not the last",
    ("var", "ddof"): "it is called correction: F.var(x, correction=1)",
    ("std", "ddof"): "it is called correction: F.std(x, correction=1)",
    ("conv2d", "weight"): "it is called filter, [height, width, in, out] unless filter_layout says "
    "otherwise",
    ("resize", "scale_factor"): "F.resize(x, [1, 1, 4, 4]) takes the whole shape",
    ("resize", "size"): "F.resize(x, [1, 1, 4, 4]) takes the whole shape",
}


def keyword_hint(function: str, keyword: str) -> str:
    """Returns ` Hint: ...` for a keyword that a function does not take, or an empty string."""
    text = KEYWORDS.get((function, keyword)) or KEYWORDS.get(("", keyword))
    return f" Hint: {text}." if text else ""
