"""The Triton kernels of the scan; how they work together, and why it is right: ops/README.md.

What they have in common: a program is one warp, and works on CHUNKS chunks of the sequence and a block of BLOCK
channels at a time, STEPS steps of each chunk after the other. What belongs to one step is a tensor (CHUNKS, BLOCK), or
(CHUNKS, 1) where all channels share it; what belongs to STEPS steps is a tuple of these. Chunks and tiles (STEPS steps)
are stretches of a sequence by position, also for directions that read backwards: those visit the last one first. A line
of pixels takes a whole number of tiles, so that pixels within one are equally far apart; steps past the end of a line
have step size zero, and change nothing.

Tensors, dense unless strides are said: x, y (B, L, D); dt (B, L, K, R), or (B, L, 1, D) when R = 0; b, c
(B, L, S, N), S = K directions or G groups; a (K, N, D), times log2(e); dt_weight (K, R, D); weight (K, N, D); dt_bias,
skip (K, D); states of chunks (B, K, C, N, D), sums of their step sizes (B, K, C, D). State arithmetic is float32.
Offsets within an image are 32 bits wide where that is enough, else (WIDE) 64; all others are 64 bits wide.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)

SIZES = ["height", "width", "chunks", "chunk", "blocks", "group", "axis", "batch"]
"""What is different for every image: no kernel is compiled anew for it."""


# -- small things ------------------------------------------------------------------------------------------------------


@triton.jit
def _load(pointer, mask, EVEN: tl.constexpr):
    """Numbers as float32; zeros for channels that are not there."""
    if EVEN:
        return tl.load(pointer).to(tl.float32)
    else:
        return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _zeros(STEPS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr):
    rows = ()
    for _ in tl.static_range(STEPS):
        rows = rows + (tl.zeros([CHUNKS, BLOCK], tl.float32),)
    return rows


@triton.jit
def _softplus(value):
    """max(v, 0) + log(1 + e) with e = exp(-|v|): accurate relative to the result where it is small (to 2.3e-7)."""
    e = tl.exp2(-tl.abs(value) * LOG2_E)
    series = -0.0290740647 + e * 0.00512610214
    series = 0.0775160868 + e * series
    series = -0.136022476 + e * series
    series = 0.190768807 + e * series
    series = -0.24835399 + e * series
    series = 0.333181217 + e * series
    series = -0.49999445 + e * series
    series = 0.999999966 + e * series
    return tl.maximum(value, 0.0) + e * series


@triton.jit
def _softplus_slope(dt):
    """The logistic function of v as 1 - exp(-dt), dt = softplus(v); by its series where dt is small."""
    series = 1.0 / 120 - dt * (1.0 / 720)
    series = 1.0 / 24 - dt * series
    series = 1.0 / 6 - dt * series
    series = 1.0 / 2 - dt * series
    return tl.where(dt < 0.1, dt * (1.0 - dt * series), 1.0 - tl.exp2(-dt * LOG2_E))


@triton.jit
def _is_reversed(k, K: tl.constexpr):
    """Whether direction k reads from the last pixel to the first: the second half of two or four directions."""
    return k >= (K + 1) // 2


@triton.jit
def _program(program, blocks, chunks, CHUNKS: tl.constexpr):
    """Of the program's number: its block of channels, its chunks (CHUNKS, 1), its image."""
    block = program % blocks
    groups = tl.cdiv(chunks, CHUNKS)
    at = program // blocks % groups * CHUNKS + tl.arange(0, CHUNKS)[:, None]
    return block, at, (program // blocks // groups).to(tl.int64)


@triton.jit
def _channels(block, D, G: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr):
    """The channels (CHUNKS, BLOCK) of a block, whether they are there, the block's group, its number in the group."""
    in_group = D // G
    parts = tl.cdiv(in_group, BLOCK)
    group = block // parts
    # The same for all chunks; parameters read by it then lie in the threads as all else does.
    d = group * in_group + block % parts * BLOCK + tl.arange(0, BLOCK)[None, :] + tl.zeros([CHUNKS, 1], tl.int32)
    return d, d < (group + 1) * in_group, group, block % parts


@triton.jit
def _tile(k, at, index, chunk, height, width, K: tl.constexpr, WIDE: tl.constexpr, STEPS: tl.constexpr):
    """The pixels (CHUNKS, 1) of the tile that direction k visits as number `index` of its chunk; which are there."""
    backwards = _is_reversed(k, K)
    down = (K == 4) & (k % 2 == 1)
    inner, lines, stride = tl.where(down, height, height * width), tl.where(down, width, 1), tl.where(down, width, 1)
    of_line = tl.cdiv(inner, STEPS)
    tile = at * (chunk // STEPS) + tl.where(backwards, chunk // STEPS - 1 - index, index)
    line = tile // of_line
    along = (tile - line * of_line) * STEPS + tl.where(backwards, STEPS - 1, 0)
    sign = tl.where(backwards, -1, 1)
    begin = tl.minimum(line, lines - 1)
    pixels = ()
    valid = ()
    for step in tl.static_range(STEPS):
        position = along + sign * step
        pixel = begin + tl.minimum(position, inner - 1) * stride
        pixels = pixels + (pixel.to(tl.int64) if WIDE else pixel,)
        valid = valid + ((position < inner) & (line < lines),)
    return pixels, valid


@triton.jit
def _rows(pointer, pixels, stride, mask, EVEN: tl.constexpr, STEPS: tl.constexpr):
    """What each pixel has at `pointer`, `stride` numbers apart."""
    rows = ()
    for step in tl.static_range(STEPS):
        rows = rows + (_load(pointer + pixels[step] * stride, mask, EVEN),)
    return rows


@triton.jit
def _products(first, second, STEPS: tl.constexpr):
    products = ()
    for step in tl.static_range(STEPS):
        products = products + (first[step] * second[step],)
    return products


@triton.jit
def _where_valid(valid, rows, STEPS: tl.constexpr):
    """`rows` with zeros where nothing is there."""
    results = ()
    for step in tl.static_range(STEPS):
        results = results + (tl.where(valid[step], rows[step], 0.0),)
    return results


@triton.jit
def _step_sizes(
    dt, dt_weight, bias, pixels, valid, stride, D, mask,
    R: tl.constexpr, SOFTPLUS: tl.constexpr, EVEN: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Step sizes of the block's channels at each pixel; zero where there is none: the state then stays as it is."""
    raw = ()
    if R > 0:
        for _ in tl.static_range(STEPS):
            raw = raw + (bias,)
        UNROLL: tl.constexpr = 4 if R % 4 == 0 else 2 if R % 2 == 0 else 1
        for first in range(0, R, UNROLL):
            for r in tl.static_range(UNROLL):
                weight = _load(dt_weight + (first + r) * D, mask, EVEN)
                more = ()
                for step in tl.static_range(STEPS):
                    low = tl.load(dt + first + r + pixels[step] * stride).to(tl.float32)
                    more = more + (raw[step] + weight * low,)
                raw = more
    else:
        for step in tl.static_range(STEPS):
            raw = raw + (bias + _load(dt + pixels[step] * stride, mask, EVEN),)
    sizes = ()
    for step in tl.static_range(STEPS):
        sizes = sizes + (_softplus(raw[step]) if SOFTPLUS else raw[step],)
    return _where_valid(valid, sizes, STEPS)


# -- what a chunk does to the state that enters it ---------------------------------------------------------------------


@triton.jit(do_not_specialize=SIZES)
def summarise(
    x, dt, b, c, a, dt_weight, dt_bias, weight, grad_y, states, adjoints, sums,
    height, width, D, N, chunks, chunk, blocks,
    dt_pixel, dt_stream, b_pixel, b_stream, c_pixel, c_stream,
    K: tl.constexpr, G: tl.constexpr, R: tl.constexpr, BIAS: tl.constexpr, WEIGHT: tl.constexpr,
    SOFTPLUS: tl.constexpr, ADJOINT: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
    STEPS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """For each chunk: its last state when it starts from zero, and the sum of its step sizes.

    With ADJOINT also the gradient that it passes on to the state before it, when none comes to the state after it.
    """
    k = tl.program_id(0) % K
    block, at, image = _program(tl.program_id(0) // K, blocks, chunks, CHUNKS)
    d, mask, group, _ = _channels(block, D, G, CHUNKS, BLOCK)
    stored = mask & (at < chunks)
    first = image * height * width  # pixel of the image
    x += first * D + d
    grad_y += first * D + d
    dt += first * dt_pixel + (k * dt_stream if R else d)
    b += first * b_pixel + (k * G + group) * b_stream
    c += first * c_pixel + (k * G + group) * c_stream
    place = (image * K + k) * chunks + tl.minimum(at, chunks - 1)
    states += place * N * D + d
    adjoints += place * N * D + d
    bias = (_load(dt_bias + k * D + d, mask, EVEN) if BIAS else 0.0) + tl.zeros([CHUNKS, BLOCK], tl.float32)
    total = tl.zeros([CHUNKS, BLOCK], tl.float32)
    for index in range(chunk // STEPS):
        pixels, valid = _tile(k, at, index, chunk, height, width, K, WIDE, STEPS)
        sizes = _step_sizes(
            dt, dt_weight + k * R * D + d, bias, pixels, valid, dt_pixel, D, mask, R, SOFTPLUS, EVEN, STEPS
        )
        drive = _products(sizes, _rows(x, pixels, D, mask, EVEN, STEPS), STEPS)
        if ADJOINT:
            grads = _where_valid(valid, _rows(grad_y, pixels, D, mask, EVEN, STEPS), STEPS)
        for n in range(N):
            rate = _load(a + (k * N + n) * D + d, mask, EVEN)
            h = tl.load(states + n * D, mask=stored & (index > 0), other=0.0)
            if ADJOINT:
                passed = tl.load(adjoints + n * D, mask=stored & (index > 0), other=0.0)
                decay_so_far = tl.exp2(rate * total)
                factor = _load(weight + (k * N + n) * D + d, mask, EVEN) if WEIGHT else 1.0
            for step in tl.static_range(STEPS):
                decay = tl.exp2(rate * sizes[step])
                h = decay * h + drive[step] * tl.load(b + n + pixels[step] * b_pixel).to(tl.float32)
                if ADJOINT:
                    decay_so_far *= decay
                    source = grads[step] * tl.load(c + n + pixels[step] * c_pixel).to(tl.float32)
                    passed += decay_so_far * (source * factor)
            tl.store(states + n * D, h, mask=stored)
            if ADJOINT:
                tl.store(adjoints + n * D, passed, mask=stored)
        for step in tl.static_range(STEPS):
            total += sizes[step]
        tl.debug_barrier()  # what was stored is read again
    tl.store(sums + place * D + d, total, mask=stored)


@triton.jit(do_not_specialize=SIZES)
def carry(
    states, sums, a, starts, last, group_states, group_sums, chunks, group, E, D, blocks,
    K: tl.constexpr, FLIP: tl.constexpr, APPLY: tl.constexpr, HAS_STARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Replaces what chunks do to the state that enters them by the state that does enter them (E = N D numbers).

    A program goes through a group of chunks. With APPLY it starts from `starts`, or from zero, replaces the states of
    its chunks by those that enter them, and the last group writes the one that leaves the last chunk to `last`
    (B, K, D, N). Else it writes what the group does as a whole: its last state from zero, the sum of its step sizes.
    FLIP: whether directions that read backwards (1), or the others (-1), go from the last chunk to the first.
    """
    program = tl.program_id(0)
    e = program % blocks * BLOCK + tl.arange(0, BLOCK)
    groups = tl.cdiv(chunks, group)
    index = program // blocks % groups
    sequence = (program // blocks // groups).to(tl.int64)  # image * K + direction
    k = (sequence % K).to(tl.int32)
    mask = e < E
    rate = tl.load(a + k * E + e, mask=mask, other=0.0)
    states += sequence * chunks * E + e
    sums += sequence * chunks * D + e % D
    place = sequence * groups + index
    flipped = False
    if FLIP == 1:
        flipped = _is_reversed(k, K)
    if FLIP == -1:
        flipped = _is_reversed(k, K) == 0
    h = tl.zeros([BLOCK], tl.float32)
    if HAS_STARTS:
        h = tl.load(starts + place * E + e, mask=mask, other=0.0)
    total = tl.zeros([BLOCK], tl.float32)
    for i in range(index * group, tl.minimum((index + 1) * group, chunks)):
        at = tl.where(flipped, chunks - 1 - i, i).to(tl.int64)
        change = tl.load(states + at * E, mask=mask, other=0.0)
        size = tl.load(sums + at * D, mask=mask, other=0.0)
        if APPLY:
            tl.store(states + at * E, h, mask=mask)
        h = tl.exp2(rate * size) * h + change
        total += size
    if APPLY:
        tl.store(last + sequence * E + e % D * (E // D) + e // D, h, mask=mask & (index == groups - 1))
    else:
        tl.store(group_states + place * E + e, h, mask=mask)
        tl.store(group_sums + place * D + e % D, total, mask=mask & (e < D))


# -- outputs -----------------------------------------------------------------------------------------------------------


@triton.jit
def _add(total, result, offset, value, mask, is_first, is_last, APART: tl.constexpr):
    """Adds to `total`, where the first one begins; the last sum goes to `result`, which is the same if not APART."""
    value += tl.load(total + offset, mask=mask & (is_first == 0), other=0.0)
    if APART:
        if is_last:
            tl.store(result + offset, value, mask=mask)
        else:
            tl.store(total + offset, value, mask=mask)
    else:
        tl.store(total + offset, value, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def outputs(
    x, dt, b, c, a, dt_weight, dt_bias, skip, weight, states, total, y,
    height, width, D, N, chunks, chunk, blocks, axis,
    dt_pixel, dt_stream, b_pixel, b_stream, c_pixel, c_stream,
    K: tl.constexpr, G: tl.constexpr, R: tl.constexpr, BIAS: tl.constexpr, SKIP: tl.constexpr, APART: tl.constexpr,
    WEIGHT: tl.constexpr, SOFTPLUS: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
    STEPS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y from the states that enter the chunks, for the directions along rows (axis 0) or columns (1), both ways.

    Sums of directions are in `total`, float32; when all are added they are written to y. `states` are overwritten.
    """
    block, at, image = _program(tl.program_id(0), blocks, chunks, CHUNKS)
    d, mask, group, _ = _channels(block, D, G, CHUNKS, BLOCK)
    stored = mask & (at < chunks)
    first = image * height * width  # pixel of the image
    for half in range(2 if K > 1 else 1):
        k = axis + half * (K // 2)
        dt_k = dt + first * dt_pixel + (k * dt_stream if R else d)
        b_k = b + first * b_pixel + (k * G + group) * b_stream
        c_k = c + first * c_pixel + (k * G + group) * c_stream
        entering = states + ((image * K + k) * chunks + tl.minimum(at, chunks - 1)) * N * D + d
        bias = (_load(dt_bias + k * D + d, mask, EVEN) if BIAS else 0.0) + tl.zeros([CHUNKS, BLOCK], tl.float32)
        for index in range(chunk // STEPS):
            pixels, valid = _tile(k, at, index, chunk, height, width, K, WIDE, STEPS)
            sizes = _step_sizes(
                dt_k, dt_weight + k * R * D + d, bias, pixels, valid, dt_pixel, D, mask, R, SOFTPLUS, EVEN, STEPS
            )
            inputs = _rows(x + first * D + d, pixels, D, mask, EVEN, STEPS)
            drive = _products(sizes, inputs, STEPS)
            results = ()
            for step in tl.static_range(STEPS):
                direct = _load(skip + k * D + d, mask, EVEN) if SKIP else 0.0
                results = results + (direct * inputs[step],)
            for n in range(N):
                rate = _load(a + (k * N + n) * D + d, mask, EVEN)
                factor = _load(weight + (k * N + n) * D + d, mask, EVEN) if WEIGHT else 1.0
                h = _load(entering + n * D, mask, EVEN)
                more = ()
                for step in tl.static_range(STEPS):
                    row = tl.load(b_k + n + pixels[step] * b_pixel).to(tl.float32)
                    h = tl.exp2(rate * sizes[step]) * h + drive[step] * row
                    row = tl.load(c_k + n + pixels[step] * c_pixel).to(tl.float32)
                    more = more + (results[step] + h * (row * factor),)
                results = more
                tl.store(entering + n * D, h, mask=stored)
            for step in tl.static_range(STEPS):
                offset = first * D + d + pixels[step] * D
                _add(total, y, offset, results[step], stored & valid[step], k == 0, k == K - 1, APART)
            tl.debug_barrier()  # what was stored is read again


# -- gradients ---------------------------------------------------------------------------------------------------------


@triton.jit
def _state_before(states, noted, tile, n, N, D, mask):
    """State n before a tile: that which enters the chunk, or the one noted behind the tile before."""
    entering = tl.load(states + n * D, mask=mask & (tile == 0), other=0.0)
    return entering + tl.load(noted + ((tile - 1) * N + n) * D, mask=mask & (tile > 0), other=0.0)


@triton.jit
def _accumulate(pointer, value, mask, is_first):
    """Adds to what is there; the first one replaces it."""
    tl.store(pointer, value + tl.load(pointer, mask=mask & (is_first == 0), other=0.0), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def gradients(
    x, dt, b, c, a, dt_weight, dt_bias, skip, weight, grad_y, states, adjoints, scratch,
    total, grad_x, grad_dt, grad_b, grad_c, grad_a, grad_dt_weight, grad_dt_bias, grad_skip, grad_weight,
    batch, height, width, D, N, chunks, chunk, blocks, axis,
    dt_pixel, dt_stream, b_pixel, b_stream, c_pixel, c_stream,
    K: tl.constexpr, G: tl.constexpr, R: tl.constexpr, BIAS: tl.constexpr, SKIP: tl.constexpr, APART: tl.constexpr,
    WEIGHT: tl.constexpr, SOFTPLUS: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
    STEPS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """All gradients, from the states and the adjoints that enter the chunks, for the directions along one axis.

    A chunk is gone through twice for each direction: onwards, noting the states behind all tiles but the last in
    `scratch` (B, C, chunk / STEPS - 1, N, D), and back. grad_x: as y in `outputs`. grad_b, grad_c (P, B, L, S, N) and
    grad_dt (P, B, L, K, R) are sums over the channels of a block, P blocks in a group; grad_dt of every channel is
    (B, L, 1, D). Those of parameters are sums over a chunk, in the parameters' forms behind (B, K, C, ...). `adjoints`
    are overwritten.
    """
    block, at, image = _program(tl.program_id(0), blocks, chunks, CHUNKS)
    d, mask, group, part = _channels(block, D, G, CHUNKS, BLOCK)
    stored = mask & (at < chunks)
    length = height * width
    first = image * length  # pixel of the image
    of_part = (part * batch + image) * length  # and in sums over the channels of a block
    tiles = chunk // STEPS
    UNROLL: tl.constexpr = 4 if R % 4 == 0 else 2 if R % 2 == 0 else 1
    noted = scratch + (image * chunks + tl.minimum(at, chunks - 1)) * (tiles - 1) * N * D + d
    for half in range(2 if K > 1 else 1):
        k = axis + half * (K // 2)
        dt_k = dt + first * dt_pixel + (k * dt_stream if R else d)
        b_k = b + first * b_pixel + (k * G + group) * b_stream
        c_k = c + first * c_pixel + (k * G + group) * c_stream
        rows_of_k = (of_part * K * G + k * G + group) * N
        grad_dt_k = grad_dt + ((of_part * K + k) * R if R else first * D + d)
        place = (image * K + k) * chunks + tl.minimum(at, chunks - 1)
        bias = (_load(dt_bias + k * D + d, mask, EVEN) if BIAS else 0.0) + tl.zeros([CHUNKS, BLOCK], tl.float32)

        for tile in range(tiles - 1):
            pixels, valid = _tile(k, at, tile, chunk, height, width, K, WIDE, STEPS)
            sizes = _step_sizes(
                dt_k, dt_weight + k * R * D + d, bias, pixels, valid, dt_pixel, D, mask, R, SOFTPLUS, EVEN, STEPS
            )
            drive = _products(sizes, _rows(x + first * D + d, pixels, D, mask, EVEN, STEPS), STEPS)
            for n in range(N):
                rate = _load(a + (k * N + n) * D + d, mask, EVEN)
                h = _state_before(states + place * N * D + d, noted, tile, n, N, D, stored)
                for step in tl.static_range(STEPS):
                    row = tl.load(b_k + n + pixels[step] * b_pixel).to(tl.float32)
                    h = tl.exp2(rate * sizes[step]) * h + drive[step] * row
                tl.store(noted + (tile * N + n) * D, h, mask=stored)
            tl.debug_barrier()  # what was stored is read again

        sum_of_raw = tl.zeros([CHUNKS, BLOCK], tl.float32)
        sum_of_direct = tl.zeros([CHUNKS, BLOCK], tl.float32)
        for back in range(tiles):
            tile = tiles - 1 - back
            pixels, valid = _tile(k, at, tile, chunk, height, width, K, WIDE, STEPS)
            sizes = _step_sizes(
                dt_k, dt_weight + k * R * D + d, bias, pixels, valid, dt_pixel, D, mask, R, SOFTPLUS, EVEN, STEPS
            )
            inputs = _rows(x + first * D + d, pixels, D, mask, EVEN, STEPS)
            grads = _where_valid(valid, _rows(grad_y + first * D + d, pixels, D, mask, EVEN, STEPS), STEPS)
            through_b = _zeros(STEPS, CHUNKS, BLOCK)  # sum_n g b
            through_decay = _zeros(STEPS, CHUNKS, BLOCK)  # sum_n decay g h[t-1] a
            for n in range(N):
                rate = _load(a + (k * N + n) * D + d, mask, EVEN)
                factor = _load(weight + (k * N + n) * D + d, mask, EVEN) if WEIGHT else 1.0
                h = _state_before(states + place * N * D + d, noted, tile, n, N, D, stored)
                passed = _load(adjoints + (place * N + n) * D + d, mask, EVEN)  # decay g of the step after
                hs = (h,)
                decays = ()
                for step in tl.static_range(STEPS):
                    decay = tl.exp2(rate * sizes[step])
                    row = tl.load(b_k + n + pixels[step] * b_pixel).to(tl.float32)
                    h = decay * h + (sizes[step] * inputs[step]) * row
                    hs = hs + (h,)
                    decays = decays + (decay,)
                sum_of_a = tl.zeros([CHUNKS, BLOCK], tl.float32)
                sum_of_weight = tl.zeros([CHUNKS, BLOCK], tl.float32)
                more_b = ()
                more_decay = ()
                for step in tl.static_range(STEPS - 1, -1, -1):
                    offset = rows_of_k + n + pixels[step] * (K * G * N)
                    there = valid[step] & (at < chunks)
                    row = tl.load(c_k + n + pixels[step] * c_pixel).to(tl.float32)
                    seen = grads[step] * factor
                    g = passed + seen * row
                    tl.store(grad_c + offset, tl.sum(seen * hs[step + 1], axis=1, keep_dims=True), mask=there)
                    driven = tl.sum(g * (sizes[step] * inputs[step]), axis=1, keep_dims=True)
                    tl.store(grad_b + offset, driven, mask=there)
                    if WEIGHT:
                        sum_of_weight += grads[step] * row * hs[step + 1]
                    passed = decays[step] * g
                    product = passed * hs[step]
                    sum_of_a += product * sizes[step]
                    row = tl.load(b_k + n + pixels[step] * b_pixel).to(tl.float32)  # again: registers are scarce
                    more_b = (through_b[step] + g * row,) + more_b
                    more_decay = (through_decay[step] + product * rate,) + more_decay
                through_b = more_b
                through_decay = more_decay
                tl.store(adjoints + (place * N + n) * D + d, passed, mask=stored)
                _accumulate(grad_a + (place * N + n) * D + d, sum_of_a, stored, back == 0)
                if WEIGHT:
                    _accumulate(grad_weight + (place * N + n) * D + d, sum_of_weight, stored, back == 0)

            raws = ()
            for step in tl.static_range(STEPS):
                raw = inputs[step] * through_b[step] + through_decay[step] * LN_2
                if SOFTPLUS:
                    raw *= _softplus_slope(sizes[step])
                raws = raws + (raw,)
            raws = _where_valid(valid, raws, STEPS)
            for step in tl.static_range(STEPS):
                sum_of_raw += raws[step]
                sum_of_direct += grads[step] * inputs[step]
                direct = _load(skip + k * D + d, mask, EVEN) if SKIP else 0.0
                value = sizes[step] * through_b[step] + direct * grads[step]
                offset = first * D + d + pixels[step] * D
                _add(total, grad_x, offset, value, stored & valid[step], k == 0, k == K - 1, APART)
            if R > 0:
                for start in range(0, R, UNROLL):
                    for more in tl.static_range(UNROLL):
                        r = start + more
                        factor = _load(dt_weight + (k * R + r) * D + d, mask, EVEN)
                        sum_of_factor = tl.zeros([CHUNKS, BLOCK], tl.float32)
                        for step in tl.static_range(STEPS):
                            low = tl.load(dt_k + r + pixels[step] * dt_pixel).to(tl.float32)
                            sum_of_factor += raws[step] * low
                            projected = tl.sum(raws[step] * factor, axis=1, keep_dims=True)
                            there = valid[step] & (at < chunks)
                            tl.store(grad_dt_k + r + pixels[step] * (K * R), projected, mask=there)
                        _accumulate(grad_dt_weight + (place * R + r) * D + d, sum_of_factor, stored, back == 0)
            else:
                for step in tl.static_range(STEPS):
                    tl.store(grad_dt_k + pixels[step] * D, raws[step], mask=stored & valid[step])
            tl.debug_barrier()  # what was stored is read again
        if BIAS:
            tl.store(grad_dt_bias + place * D + d, sum_of_raw, mask=stored)
        if SKIP:
            tl.store(grad_skip + place * D + d, sum_of_direct, mask=stored)
