"""The rule of `kernels/host/quantized.h` in NumPy: the bits that every processor must compute."""

from __future__ import annotations

from typing import Any

import numpy as np

MOST = 32639.5  # integers are at most 127 * 256 + 127, two signed bytes
FAR = 32


def span_of(group: int | None) -> int:
    """Returns how many numbers of a row become integers together; see `linear` for `group`."""
    return 128 if group is None else next(n for n in (128, 64, 32) if group % n == 0)


def integers(x: Any) -> tuple[Any, Any, Any]:
    """Makes integers of spans.

    Args:
        x: float32 [spans, span].

    Returns:
        Integers [spans, span], units [spans], and which numbers are far from the others.
    """
    x = x.astype(np.float64)
    far = ~np.isfinite(x)
    while True:
        near = np.where(far, 0, x)
        largest = np.abs(near).max(axis=1)
        unit = np.ldexp(1.0, np.frexp(largest)[1] - 15)
        unit = np.where(largest >= MOST * unit, 2 * unit, unit)
        small = (unit < 2.0**-126) & (largest > 0)
        if small.any():  # their unit would not be a normal float
            far |= (near != 0) & small[:, None]
            continue
        unit = np.where(largest == 0, 2.0**-126, unit)
        q = np.rint(near / unit[:, None])
        count = (near != 0).sum(axis=1, keepdims=True)
        more = np.abs(q) * count > FAR * np.abs(q).sum(axis=1, keepdims=True)
        if not more.any():
            return q.astype(np.int64), unit.astype(np.float32), far
        far |= more


def linear(x: Any, codes: Any, scales: Any, group: int | None) -> Any:
    """Multiplies float32 rows with codes [out, in], one integer for each weight.

    Args:
        x: float32 [rows, in].
        codes: Integers, around 0; from 0 to 15 with minimums.
        scales: Floats [out, 1], or [out, in / group]; or uint8 [out, 2 * in / group + 1].
        group: Codes that share a scale; None, or -1, where all of a row do.

    Returns:
        float32 [rows, out].
    """
    rows, depth = x.shape
    group = None if group == -1 else group
    span = span_of(group)
    spans = -(-depth // span)
    pad = ((0, 0), (0, spans * span - depth))
    x = np.pad(x, pad).reshape(rows, spans, span)
    wide = np.pad(codes.astype(np.int64), pad).reshape(len(codes), spans, span)
    sums = np.zeros((rows, len(codes)), np.float32)
    minimums, columns = np.zeros_like(scales), np.ones(len(codes), np.float32)
    if scales.dtype == np.uint8:
        groups = scales.shape[1] // 2
        columns = np.exp2(scales[:, -1].astype(np.float32) - 127)
        scales, minimums = scales[:, :groups], scales[:, groups:-1]
    elif group is None:
        columns = scales[:, 0].astype(np.float32)
    has_minimums, scales = scales.dtype == np.uint8, scales.astype(np.float32)
    minimums = minimums.astype(np.float32)
    with np.errstate(all="ignore"):
        for s in range(spans):
            q, unit, far = integers(x[:, s])
            scale = scales[:, s * span // group] if group else np.ones(len(codes), np.float32)
            exact = (q @ wide[:, s].T).astype(np.float32)
            weights = wide[:, s].astype(np.float32) * scale[:, None]
            if has_minimums:
                minimum = minimums[:, s * span // group]
                below = (8 * q.sum(axis=1)).astype(np.float32)[:, None] * minimum[None]
                sums = sums + (exact * scale[None] - below) * unit[:, None]
                weights = weights - 8 * minimum[:, None]
            else:
                sums = sums + exact * (scale[None] * unit[:, None])
            for k in np.flatnonzero(far.any(axis=0)):
                more = sums + x[:, s, k, None] * weights[None, :, k]
                sums = np.where(far[:, k, None], more, sums)
        return sums * columns
