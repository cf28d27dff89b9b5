"""Attention: heads, grouped queries, softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence

from maxmod import functional as F
from maxmod.errors import ModelError
from maxmod.tensor import Tensor

FULL, SLIDING = "full_attention", "sliding_attention"


def check_layer_types(found: Sequence[object] | None, layers: int, kinds: Sequence[str]) -> None:
    """Checks the field `layer_types` of a config.json, which names the kind of each layer.

    Raises:
        ModelError: If there is one and it has another length, or a kind the model does not have.
    """
    if found is not None and (len(found) != layers or not all(kind in kinds for kind in found)):
        raise ModelError(
            f"layer_types: expected {layers} times one of {', '.join(kinds)}, got {found!r:.200}."
        )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, seq, heads * dim] -> [batch, heads, seq, dim]"""
    batch, seq, width = x.shape
    return x.reshape([batch, seq, heads, width // heads]).permute([0, 2, 1, 3])


def merge_heads(x: Tensor) -> Tensor:
    """[batch, heads, seq, dim] -> [batch, seq, heads * dim]"""
    batch, heads, seq, dim = x.shape
    return x.permute([0, 2, 1, 3]).reshape([batch, seq, heads * dim])


def soft_cap(x: Tensor, cap: float | None) -> Tensor:
    """cap * tanh(x / cap), which lies between -cap and cap; x itself if cap is None.

    Source: Gemma 2, arXiv 2408.00118.
    """
    return x if cap is None else F.tanh(x / cap) * cap


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    cap: float | None = None,
    *,
    bias: Tensor | None = None,
) -> Tensor:
    """softmax(scale * q @ k.T + bias) @ v for each head, where the mask is true.

    Args:
        q: Queries [batch, heads, seq, dim].
        k: Keys [batch, groups, length, dim]; each serves heads / groups adjacent heads.
        v: Values, like the keys.
        mask: bool, broadcast to [batch, 1, seq, length]; each row has at least one true element.
            None is true everywhere.
        scale: Factor of the scores.
        cap: Bound of the scaled scores; see `soft_cap`.
        bias: Added to the scores [batch, heads, seq, length]; only where heads equal groups.

    Returns:
        The shape and dtype of q.

    Source: A. Vaswani et al., Attention Is All You Need, arXiv 1706.03762; J. Ainslie et al., GQA,
        arXiv 2305.13245.
    """
    batch, heads, seq, dim = q.shape
    groups = k.shape[1]
    if bias is not None and heads != groups:
        raise ModelError("attention: expected as many key heads as heads where there is a bias.")
    if seq == 1:  # the queries that share a key become the rows of one product
        q = q.reshape([batch, groups, heads // groups, dim])
    elif heads != groups:
        q = q.reshape([batch, groups, heads // groups, seq, dim])
        k, v = F.unsqueeze(k, 2), F.unsqueeze(v, 2)
        mask = None if mask is None else F.unsqueeze(mask, -3)
    scores = soft_cap(q @ k.T * scale, cap)
    scores = scores if bias is None else scores + bias
    if mask is not None:
        scores = F.where(mask, scores, -math.inf)
    return (F.softmax(scores) @ v).reshape([batch, heads, seq, dim])
