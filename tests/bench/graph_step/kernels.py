"""Kernels for a U-Net in channels-last order whose own weights are frozen.

Group norm with SiLU, addition with layer norm, GEGLU: forward, and backward to their inputs alone.
Written in Triton, tried on a CPU with TRITON_INTERPRET=1.

Shapes: B batch, R rows (places), C channels, G groups, CG channels of a group, S slices of rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

ROWS = 64  # of a slice


@triton.jit
def _gn_partial(
    x, add, mean, m2, R, C, S, HAS_ADD: tl.constexpr, ROWS: tl.constexpr, BC: tl.constexpr
):
    s = tl.program_id(0)
    cb = tl.program_id(1)
    b = tl.program_id(2)
    rows = s * ROWS + tl.arange(0, ROWS)
    cols = cb * BC + tl.arange(0, BC)
    ok = (rows[:, None] < R) & (cols[None, :] < C)
    v = tl.load(x + b * R * C + rows[:, None] * C + cols[None, :], mask=ok, other=0.0).to(
        tl.float32
    )
    if HAS_ADD:
        a = tl.load(add + b * C + cols, mask=cols < C, other=0.0).to(tl.float32)
        v = tl.where(ok, v + a[None, :], 0.0)
    n = tl.minimum(R - s * ROWS, ROWS).to(tl.float32)
    mu = tl.sum(v, 0) / n
    d = tl.where(ok, v - mu[None, :], 0.0)
    at = (b * S + s) * C + cols
    tl.store(mean + at, mu, mask=cols < C)
    tl.store(m2 + at, tl.sum(d * d, 0), mask=cols < C)


@triton.jit
def _gn_merge(
    mean,
    m2,
    stats,
    R,
    C,
    S: tl.constexpr,
    CG,
    eps,
    ROWS: tl.constexpr,
    BS: tl.constexpr,
    BCG: tl.constexpr,
):
    g = tl.program_id(0)
    b = tl.program_id(1)
    G = tl.num_programs(0)
    cols = tl.arange(0, BCG)
    total = 0.0
    for s0 in range(0, S, BS):
        ss = s0 + tl.arange(0, BS)
        ok = (ss[:, None] < S) & (cols[None, :] < CG)
        n = tl.minimum(R - ss * ROWS, ROWS).to(tl.float32)
        m = tl.load(mean + (b * S + ss[:, None]) * C + g * CG + cols[None, :], mask=ok, other=0.0)
        total += tl.sum(tl.where(ok, m * n[:, None], 0.0))
    mu = total / (R * CG)
    sq = 0.0
    for s0 in range(0, S, BS):
        ss = s0 + tl.arange(0, BS)
        ok = (ss[:, None] < S) & (cols[None, :] < CG)
        n = tl.minimum(R - ss * ROWS, ROWS).to(tl.float32)
        at = (b * S + ss[:, None]) * C + g * CG + cols[None, :]
        m = tl.load(mean + at, mask=ok, other=0.0)
        q = tl.load(m2 + at, mask=ok, other=0.0)
        d = m - mu
        sq += tl.sum(tl.where(ok, q + d * d * n[:, None], 0.0))
    rstd = 1.0 / tl.sqrt(sq / (R * CG) + eps)
    tl.store(stats + (b * G + g) * 2, mu)
    tl.store(stats + (b * G + g) * 2 + 1, rstd)


@triton.jit
def _gn_apply(
    x,
    add,
    w,
    bias,
    stats,
    y,
    R,
    C,
    CG,
    G,
    HAS_ADD: tl.constexpr,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    BC: tl.constexpr,
):
    s = tl.program_id(0)
    cb = tl.program_id(1)
    b = tl.program_id(2)
    rows = s * ROWS + tl.arange(0, ROWS)
    cols = cb * BC + tl.arange(0, BC)
    cok = cols < C
    ok = (rows[:, None] < R) & cok[None, :]
    at = b * R * C + rows[:, None] * C + cols[None, :]
    v = tl.load(x + at, mask=ok, other=0.0).to(tl.float32)
    if HAS_ADD:
        v += tl.load(add + b * C + cols, mask=cok, other=0.0).to(tl.float32)[None, :]
    g = cols // CG
    mu = tl.load(stats + (b * G + g) * 2, mask=cok, other=0.0)
    rs = tl.load(stats + (b * G + g) * 2 + 1, mask=cok, other=0.0)
    ww = tl.load(w + cols, mask=cok, other=0.0).to(tl.float32)
    bb = tl.load(bias + cols, mask=cok, other=0.0).to(tl.float32)
    h = (v - mu[None, :]) * rs[None, :] * ww[None, :] + bb[None, :]
    if SILU:
        h = h * tl.sigmoid(h)
    tl.store(y + at, h.to(y.dtype.element_ty), mask=ok)


@triton.jit
def _gn_bwd_partial(
    x,
    add,
    w,
    bias,
    stats,
    gy,
    p1,
    p2,
    R,
    C,
    CG,
    G,
    S,
    HAS_ADD: tl.constexpr,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    BC: tl.constexpr,
):
    s = tl.program_id(0)
    cb = tl.program_id(1)
    b = tl.program_id(2)
    rows = s * ROWS + tl.arange(0, ROWS)
    cols = cb * BC + tl.arange(0, BC)
    cok = cols < C
    ok = (rows[:, None] < R) & cok[None, :]
    at = b * R * C + rows[:, None] * C + cols[None, :]
    v = tl.load(x + at, mask=ok, other=0.0).to(tl.float32)
    if HAS_ADD:
        v += tl.load(add + b * C + cols, mask=cok, other=0.0).to(tl.float32)[None, :]
    g = cols // CG
    mu = tl.load(stats + (b * G + g) * 2, mask=cok, other=0.0)
    rs = tl.load(stats + (b * G + g) * 2 + 1, mask=cok, other=0.0)
    ww = tl.load(w + cols, mask=cok, other=0.0).to(tl.float32)
    xh = (v - mu[None, :]) * rs[None, :]
    gr = tl.load(gy + at, mask=ok, other=0.0).to(tl.float32)
    if SILU:
        bb = tl.load(bias + cols, mask=cok, other=0.0).to(tl.float32)
        h = xh * ww[None, :] + bb[None, :]
        sg = tl.sigmoid(h)
        gr = gr * sg * (1 + h * (1 - sg))
    gr = tl.where(ok, gr * ww[None, :], 0.0)
    out = (b * S + s) * C + cols
    tl.store(p1 + out, tl.sum(gr, 0), mask=cok)
    tl.store(p2 + out, tl.sum(gr * xh, 0), mask=cok)


@triton.jit
def _gn_bwd_merge(p1, p2, c12, R, C, S: tl.constexpr, CG, BS: tl.constexpr, BCG: tl.constexpr):
    g = tl.program_id(0)
    b = tl.program_id(1)
    G = tl.num_programs(0)
    cols = tl.arange(0, BCG)
    a1 = 0.0
    a2 = 0.0
    for s0 in range(0, S, BS):
        ss = s0 + tl.arange(0, BS)
        ok = (ss[:, None] < S) & (cols[None, :] < CG)
        at = (b * S + ss[:, None]) * C + g * CG + cols[None, :]
        a1 += tl.sum(tl.load(p1 + at, mask=ok, other=0.0))
        a2 += tl.sum(tl.load(p2 + at, mask=ok, other=0.0))
    n = R * CG
    tl.store(c12 + (b * G + g) * 2, a1 / n)
    tl.store(c12 + (b * G + g) * 2 + 1, a2 / n)


@triton.jit
def _gn_bwd(
    x,
    add,
    w,
    bias,
    stats,
    c12,
    gy,
    gx,
    R,
    C,
    CG,
    G,
    HAS_ADD: tl.constexpr,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    BC: tl.constexpr,
):
    s = tl.program_id(0)
    cb = tl.program_id(1)
    b = tl.program_id(2)
    rows = s * ROWS + tl.arange(0, ROWS)
    cols = cb * BC + tl.arange(0, BC)
    cok = cols < C
    ok = (rows[:, None] < R) & cok[None, :]
    at = b * R * C + rows[:, None] * C + cols[None, :]
    v = tl.load(x + at, mask=ok, other=0.0).to(tl.float32)
    if HAS_ADD:
        v += tl.load(add + b * C + cols, mask=cok, other=0.0).to(tl.float32)[None, :]
    g = cols // CG
    mu = tl.load(stats + (b * G + g) * 2, mask=cok, other=0.0)
    rs = tl.load(stats + (b * G + g) * 2 + 1, mask=cok, other=0.0)
    c1 = tl.load(c12 + (b * G + g) * 2, mask=cok, other=0.0)
    c2 = tl.load(c12 + (b * G + g) * 2 + 1, mask=cok, other=0.0)
    ww = tl.load(w + cols, mask=cok, other=0.0).to(tl.float32)
    xh = (v - mu[None, :]) * rs[None, :]
    gr = tl.load(gy + at, mask=ok, other=0.0).to(tl.float32)
    if SILU:
        bb = tl.load(bias + cols, mask=cok, other=0.0).to(tl.float32)
        h = xh * ww[None, :] + bb[None, :]
        sg = tl.sigmoid(h)
        gr = gr * sg * (1 + h * (1 - sg))
    d = (gr * ww[None, :] - c1[None, :] - xh * c2[None, :]) * rs[None, :]
    tl.store(gx + at, d.to(gx.dtype.element_ty), mask=ok)


def _power_of_2(n):
    return triton.next_power_of_2(n)


def _channels_last(t):
    return t.contiguous(memory_format=torch.channels_last)


class GroupNormSilu(torch.autograd.Function):
    """Normalises x_BCHW + add_BC (or x alone) in groups, and applies SiLU where asked.

    Means and variances are merged slice by slice, so that large means lose nothing.
    """

    @staticmethod
    def forward(ctx, x, add, w, bias, groups, eps, silu):
        x = _channels_last(x)
        B, C, H, W = x.shape
        R, CG = H * W, C // groups
        S = triton.cdiv(R, ROWS)
        BC = min(64, _power_of_2(C))
        f = {"device": x.device, "dtype": torch.float32}
        mean, m2 = torch.empty(B, S, C, **f), torch.empty(B, S, C, **f)
        stats = torch.empty(B, groups, 2, **f)
        y = torch.empty_like(x)
        grid = (S, triton.cdiv(C, BC), B)
        has = add is not None
        a = add if has else x
        _gn_partial[grid](x, a, mean, m2, R, C, S, has, ROWS, BC)
        BCG = _power_of_2(CG)
        BS = max(1, min(_power_of_2(S), 4096 // BCG))
        _gn_merge[(groups, B)](mean, m2, stats, R, C, S, CG, eps, ROWS, BS, BCG)
        _gn_apply[grid](x, a, w, bias, stats, y, R, C, CG, groups, has, silu, ROWS, BC)
        ctx.save_for_backward(x, a if has else None, w, bias, stats)
        ctx.facts = groups, silu, has
        return y

    @staticmethod
    def backward(ctx, gy):
        x, a, w, bias, stats = ctx.saved_tensors
        groups, silu, has = ctx.facts
        gy = _channels_last(gy)
        B, C, H, W = x.shape
        R, CG = H * W, C // groups
        S, BC = triton.cdiv(R, ROWS), min(64, _power_of_2(C))
        f = {"device": x.device, "dtype": torch.float32}
        p1, p2 = torch.empty(B, S, C, **f), torch.empty(B, S, C, **f)
        c12 = torch.empty(B, groups, 2, **f)
        gx = torch.empty_like(x)
        grid = (S, triton.cdiv(C, BC), B)
        a = a if has else x
        _gn_bwd_partial[grid](
            x, a, w, bias, stats, gy, p1, p2, R, C, CG, groups, S, has, silu, ROWS, BC
        )
        BCG = _power_of_2(CG)
        BS = max(1, min(_power_of_2(S), 4096 // BCG))
        _gn_bwd_merge[(groups, B)](p1, p2, c12, R, C, S, CG, BS, BCG)
        _gn_bwd[grid](x, a, w, bias, stats, c12, gy, gx, R, C, CG, groups, has, silu, ROWS, BC)
        return gx, None, None, None, None, None, None


@triton.jit
def _add_ln(res, y, w, b, out, ln, stats, C, eps, HAS_ADD: tl.constexpr, BC: tl.constexpr):
    row = tl.program_id(0)
    cols = tl.arange(0, BC)
    ok = cols < C
    v = tl.load(res + row * C + cols, mask=ok, other=0.0).to(tl.float32)
    if HAS_ADD:
        v += tl.load(y + row * C + cols, mask=ok, other=0.0).to(tl.float32)
        v = v.to(out.dtype.element_ty).to(tl.float32)
        tl.store(out + row * C + cols, v.to(out.dtype.element_ty), mask=ok)
    mu = tl.sum(v) / C
    d = tl.where(ok, v - mu, 0.0)
    rs = 1.0 / tl.sqrt(tl.sum(d * d) / C + eps)
    h = d * rs * tl.load(w + cols, mask=ok, other=0.0).to(tl.float32) + tl.load(
        b + cols, mask=ok, other=0.0
    ).to(tl.float32)
    tl.store(ln + row * C + cols, h.to(ln.dtype.element_ty), mask=ok)
    tl.store(stats + row * 2, mu)
    tl.store(stats + row * 2 + 1, rs)


@triton.jit
def _add_ln_bwd(v0, w, stats, gln, gres, gx, C, HAS_RES: tl.constexpr, BC: tl.constexpr):
    row = tl.program_id(0)
    cols = tl.arange(0, BC)
    ok = cols < C
    v = tl.load(v0 + row * C + cols, mask=ok, other=0.0).to(tl.float32)
    mu = tl.load(stats + row * 2)
    rs = tl.load(stats + row * 2 + 1)
    xh = tl.where(ok, (v - mu) * rs, 0.0)
    g = tl.load(gln + row * C + cols, mask=ok, other=0.0).to(tl.float32) * tl.load(
        w + cols, mask=ok, other=0.0
    ).to(tl.float32)
    c1 = tl.sum(g) / C
    c2 = tl.sum(g * xh) / C
    d = (g - c1 - xh * c2) * rs
    if HAS_RES:
        d += tl.load(gres + row * C + cols, mask=ok, other=0.0).to(tl.float32)
    tl.store(gx + row * C + cols, d.to(gx.dtype.element_ty), mask=ok)


class AddLayerNorm(torch.autograd.Function):
    """(res, y) -> res + y and its layer norm; y may be None."""

    @staticmethod
    def forward(ctx, res, y, w, b, eps):
        res = res.contiguous()
        C = res.shape[-1]
        N = res.numel() // C
        ln = torch.empty_like(res)
        stats = torch.empty(N, 2, device=res.device, dtype=torch.float32)
        out = res if y is None else torch.empty_like(res)
        yy = res if y is None else y.contiguous()
        BC = _power_of_2(C)
        _add_ln[(N,)](res, yy, w, b, out, ln, stats, C, eps, y is not None, BC, num_warps=4)
        ctx.save_for_backward(out, w, stats)
        ctx.has = y is not None
        if y is None:
            out = res.view_as(res)
        return out, ln

    @staticmethod
    def backward(ctx, gout, gln):
        v, w, stats = ctx.saved_tensors
        C = v.shape[-1]
        N = v.numel() // C
        gx = torch.empty_like(v)
        gln = gln.contiguous()
        has = gout is not None
        _add_ln_bwd[(N,)](
            v,
            w,
            stats,
            gln,
            gout.contiguous() if has else gln,
            gx,
            C,
            has,
            _power_of_2(C),
            num_warps=4,
        )
        return gx, gx if ctx.has else None, None, None, None


@triton.jit
def _geglu(y, out, N, C, BC: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BC + tl.arange(0, BC)
    ok = i < N * C
    row, col = i // C, i % C
    h = tl.load(y + row * 2 * C + col, mask=ok, other=0.0).to(tl.float32)
    g = tl.load(y + row * 2 * C + C + col, mask=ok, other=0.0).to(tl.float32)
    cdf = 0.5 * (1 + tl.math.erf(g * 0.7071067811865476))
    tl.store(out + i, (h * g * cdf).to(out.dtype.element_ty), mask=ok)


@triton.jit
def _geglu_bwd(y, go, gy, N, C, BC: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BC + tl.arange(0, BC)
    ok = i < N * C
    row, col = i // C, i % C
    h = tl.load(y + row * 2 * C + col, mask=ok, other=0.0).to(tl.float32)
    g = tl.load(y + row * 2 * C + C + col, mask=ok, other=0.0).to(tl.float32)
    o = tl.load(go + i, mask=ok, other=0.0).to(tl.float32)
    cdf = 0.5 * (1 + tl.math.erf(g * 0.7071067811865476))
    pdf = 0.3989422804014327 * tl.exp(-0.5 * g * g)
    tl.store(gy + row * 2 * C + col, (o * g * cdf).to(gy.dtype.element_ty), mask=ok)
    tl.store(gy + row * 2 * C + C + col, (o * h * (cdf + g * pdf)).to(gy.dtype.element_ty), mask=ok)


class Geglu(torch.autograd.Function):
    """The first half of the channels times GELU of the second."""

    @staticmethod
    def forward(ctx, y):
        C = y.shape[-1] // 2
        N = y.numel() // (2 * C)
        out = torch.empty(*y.shape[:-1], C, device=y.device, dtype=y.dtype)
        _geglu[(triton.cdiv(N * C, 1024),)](y, out, N, C, 1024)
        ctx.save_for_backward(y)
        return out

    @staticmethod
    def backward(ctx, go):
        (y,) = ctx.saved_tensors
        C = y.shape[-1] // 2
        N = y.numel() // (2 * C)
        gy = torch.empty_like(y)
        _geglu_bwd[(triton.cdiv(N * C, 1024),)](y, go.contiguous(), gy, N, C, 1024)
        return gy
