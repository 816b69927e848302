"""Each Triton kernel is its torch reference, on ugly shapes, and writes only its outputs.

The kernels run in Triton's interpreter, in a process of their own: what decides between interpreter
and compiler is read when triton is first imported. The last test compiles them for a GPU that need
not be there. Nothing here says how fast they are.
"""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing import get_context

import pytest
import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from model.rotary import apply_rotary, rotary_angles

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="needs triton: pip install 'triton>=3.6'"
)

DTYPES = [torch.float32, torch.bfloat16]
# The interpreter cuts fp32 to bfloat16 off instead of rounding: one unit in the last place.
TOLERANCES = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
GUARD = 67


class Guarded:
    """Hands out memory with a margin on both sides, and knows whether a margin was written."""

    def __init__(self):
        self.whole = []

    def new(self, shape, dtype):
        """A tensor full of NaN in the middle of a larger one."""
        size = torch.Size(shape).numel()
        whole = torch.full((size + 2 * GUARD,), float("nan"), dtype=dtype)
        self.whole.append(whole)
        return whole[GUARD : GUARD + size].view(shape)

    def hold(self, x):
        """A copy of a tensor between margins: what is read beside it turns up as NaN."""
        return self.new(x.shape, x.dtype).copy_(x)

    @contextmanager
    def outputs(self):
        """Whatever a kernel allocates comes from here."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "empty_like", lambda x: self.new(x.shape, x.dtype))
            patch.setattr(torch, "empty", lambda *shape, dtype, device: self.new(shape, dtype))
            yield

    def check(self):
        """No margin was touched."""
        assert self.whole
        for whole in self.whole:
            assert whole[:GUARD].isnan().all()
            assert whole[-GUARD:].isnan().all()


def drawn(*shape, dtype=torch.float32, seed=0):
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(ours, expected, dtype):
    """Equal up to the rounding of a dtype, relative to the largest value."""
    assert ours.shape == expected.shape
    scale = max(1.0, float(expected.detach().abs().max()) if expected.numel() else 0.0)
    tolerance = TOLERANCES[dtype] * scale
    torch.testing.assert_close(ours.double(), expected.double(), rtol=0, atol=tolerance)


def compare(kernel, reference, inputs, dtype, **constants):
    """Outputs and gradients of a kernel in `dtype` against the reference in fp64."""
    guarded = Guarded()
    ours = [guarded.hold(x.to(dtype)).requires_grad_() for x in inputs]
    exact = [x.to(dtype).double().requires_grad_() for x in inputs]
    with guarded.outputs():
        outputs = kernel(*ours, *constants.values())
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        slopes = [drawn(*x.shape, dtype=dtype, seed=9 + i) for i, x in enumerate(outputs)]
        gradients = torch.autograd.grad(outputs, ours, slopes)
    expected = reference(*exact, *constants.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    slopes = [slope.double() for slope in slopes]
    exact_gradients = torch.autograd.grad(expected, exact, slopes)
    for one, other in zip((*outputs, *gradients), (*expected, *exact_gradients), strict=True):
        assert one.dtype == dtype
        close(one, other, dtype)
    guarded.check()


def check_softmax_gradient(dtype, rows, columns, num_tokens):
    from kernels.cross_entropy import reference, softmax_gradient_

    guarded = Guarded()
    logits = drawn(rows, columns) * 4
    logits[:, num_tokens:] = float("inf")  # padding may hold anything
    labels = torch.arange(rows) * 7919 % num_tokens
    labels[1::3] = -100
    ours = guarded.hold(logits.to(dtype))
    with guarded.outputs():
        losses = softmax_gradient_(ours, labels, num_tokens, -100)
    expected, gradient = reference(ours.new_tensor(logits).double(), labels, num_tokens, -100)
    close(losses, expected, torch.float32 if dtype == torch.float32 else dtype)
    close(ours, gradient, dtype)
    assert (ours[labels == -100] == 0).all()
    assert (losses[labels == -100] == 0).all()
    assert (ours[:, num_tokens:] == 0).all()
    guarded.check()


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("rows", "columns", "num_tokens"),
    [(1, 1, 1), (4, 37, 37), (4, 64, 63), (2, 9001, 8999), (2, 8200, 4096)],
)
def test_softmax_gradient(interpreter, dtype, rows, columns, num_tokens):
    interpreter(check_softmax_gradient, dtype, rows, columns, num_tokens)


@needs_triton
def test_softmax_gradient_of_a_large_vocabulary(interpreter):
    interpreter(check_softmax_gradient, torch.float32, 2, 128_256, 128_000)


def check_extreme_logits():
    from kernels.cross_entropy import softmax_gradient_

    logits = torch.zeros(4, 5000)
    logits[0, 4999] = 1e4  # the sum so far is rescaled to nothing
    logits[1, 0] = 1e4  # what follows counts for nothing
    logits[2] = -1e4
    logits[3, 0] = float("nan")
    losses = softmax_gradient_(logits, torch.tensor([4999, 1, 7, 2]), 5000, -100)
    assert losses[0] == 0
    assert losses[1] == 1e4
    close(losses[2:3], torch.tensor([5000.0]).log(), torch.float32)
    assert losses[3].isnan()
    assert logits[:3].isfinite().all()


@needs_triton
def test_extreme_logits(interpreter):
    interpreter(check_extreme_logits)


def check_bad_label():
    from kernels.cross_entropy import softmax_gradient_

    losses = softmax_gradient_(torch.zeros(4, 9), torch.tensor([8, 7, -1, 1000]), 8, -100)
    assert losses.isnan().tolist() == [True, False, True, True]


@needs_triton
def test_label_without_a_token_makes_the_loss_nan(interpreter):
    interpreter(check_bad_label)


def check_linear_cross_entropy(dtype, chunk_logits, num_tokens):
    from kernels import cross_entropy
    from model.loss import linear_cross_entropy

    hidden, weight = drawn(2, 11, 16, dtype=dtype), drawn(37, 16, dtype=dtype, seed=1)
    labels = torch.arange(22).view(2, 11) * 13 % num_tokens
    labels[0, ::2] = -100
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "CHUNK_LOGITS", chunk_logits)
        for triton in (True, False):
            x, w = (t.to(dtype if triton else torch.float64) for t in (hidden, weight))
            x, w = x.requires_grad_(), w.requires_grad_()
            if triton:
                flat = (x.flatten(0, 1), w, labels.flatten(), num_tokens, -100)
                count = int((labels != -100).sum())
                total, losses = cross_entropy.linear_cross_entropy(*flat, supervised=count)
                assert torch.equal(losses, cross_entropy.linear_cross_entropy(*flat)[1])
                rows = losses.view(2, 11).sum(1)
            else:
                total, rows = linear_cross_entropy(x, w, labels, num_tokens)
            results.append((total, rows, *torch.autograd.grad(total * 0.3, (x, w))))
    for ours, twin in zip(*results, strict=True):
        close(ours, twin, dtype)
    assert (results[0][-1][num_tokens:] == 0).all()


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("chunk_logits", "num_tokens"), [(1, 37), (4 * 37, 31), (1 << 27, 37)])
def test_linear_cross_entropy_is_the_twin_in_torch(interpreter, dtype, chunk_logits, num_tokens):
    interpreter(check_linear_cross_entropy, dtype, chunk_logits, num_tokens)


def check_nothing_supervised():
    from kernels.cross_entropy import linear_cross_entropy

    hidden, weight = drawn(3, 4).requires_grad_(), drawn(5, 4).requires_grad_()
    total, losses = linear_cross_entropy(hidden, weight, torch.full((3,), -100), 5, -100)
    gradients = torch.autograd.grad(total, (hidden, weight))
    assert all((x == 0).all() for x in (total, losses, *gradients))
    with torch.no_grad():
        total, _ = linear_cross_entropy(hidden, weight, torch.zeros(3).long(), 5, -100)
        assert not total.requires_grad


@needs_triton
def test_nothing_supervised_and_no_gradient(interpreter):
    interpreter(check_nothing_supervised)


def check_add_rms_norm(dtype, shape):
    from kernels.add_rms_norm import add_rms_norm

    def exact(x, residual, weight, eps):
        total = x + residual  # the norm sees the sum as it was rounded
        rounded = total + (total.detach().to(dtype).double() - total.detach())
        return rms_norm(rounded, weight.shape, weight, eps), total

    inputs = [drawn(*shape), drawn(*shape, seed=1), 1 + drawn(shape[-1], seed=2)]
    compare(add_rms_norm, exact, inputs, dtype, eps=1e-5)


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 7), (33, 64), (2, 4097), (0, 8)])
def test_add_rms_norm(interpreter, dtype, shape):
    interpreter(check_add_rms_norm, dtype, shape)


def check_rope(dtype, rows, length, heads, key_heads, width):
    from kernels.rope import reference, rope

    guarded = Guarded()
    positions = torch.arange(rows * length).view(rows, length) * 37 % 1000
    cos, sin = (guarded.hold(x) for x in rotary_angles(positions, width, 1e4))
    inputs = [drawn(rows, length, n, width, seed=n) for n in (heads, key_heads)]
    compare(rope, reference, inputs, dtype, cos=cos, sin=sin)
    guarded.check()


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 2), (2, 5, 3, 1, 6), (1, 3, 8, 8, 64), (0, 4, 2, 1, 4)]
)
def test_rope(interpreter, dtype, shape):
    interpreter(check_rope, dtype, *shape)


def check_swiglu(dtype, shape):
    from kernels.swiglu import reference, swiglu

    compare(swiglu, reference, [3 * drawn(*shape), drawn(*shape, seed=1)], dtype)


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1,), (3, 341), (1024,), (1025,), (0, 3)])
def test_swiglu(interpreter, dtype, shape):
    interpreter(check_swiglu, dtype, shape)


def check_lora_swiglu(dtype, tokens, width, rank, programs):
    from kernels import lora_swiglu as k

    guarded = Guarded()
    shapes = {
        "grad": (tokens, width),
        "low_down": (tokens, rank),
        "a_down": (rank, width),
        "gate": (tokens, width),
        "up": (tokens, width),
        "low": (tokens, 2 * rank),
        "b_gate": (width, rank),
        "b_up": (width, rank),
    }
    inputs = [drawn(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes.values())]
    ours = [guarded.hold(x) for x in inputs]
    exact = [x.double() for x in inputs]
    with pytest.MonkeyPatch.context() as patch, guarded.outputs():
        patch.setattr(k, "PROGRAMS", programs)
        out, gradients = k.lora_swiglu(*ours[3:]), k.lora_swiglu_backward(*ours)
    close(out, k.reference(*exact[3:]), dtype)
    for one, other in zip(gradients, k.reference_backward(*exact), strict=True):
        close(one, other, dtype)
    guarded.check()


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("tokens", "width", "rank", "programs"),
    [
        (1, 1, 1, 1),
        (33, 129, 3, 1024),  # a share of one token, a block of one feature
        (100, 200, 16, 4),  # several tiles per share
        (40, 130, 33, 2),
        (0, 8, 2, 4),
    ],
)
def test_lora_swiglu(interpreter, dtype, tokens, width, rank, programs):
    interpreter(check_lora_swiglu, dtype, tokens, width, rank, programs)


def check_half():
    check_softmax_gradient(torch.float16, 3, 37, 36)
    check_add_rms_norm(torch.float16, (3, 5, 7))
    check_rope(torch.float16, 2, 5, 3, 1, 6)
    check_swiglu(torch.float16, (3, 341))


@needs_triton
def test_half_precision(interpreter):
    interpreter(check_half)


def check_views():
    from kernels.rope import reference as turned
    from kernels.rope import rope
    from kernels.swiglu import reference, swiglu

    gate, up = drawn(6, 20).T, drawn(20, 12)[:, ::2]
    close(swiglu(gate, up), reference(gate, up), torch.float32)
    query = drawn(2, 3, 5, 8).transpose(1, 2)
    rotary = rotary_angles(torch.arange(5).expand(2, 5), 8, 1e4)
    for one, other in zip(rope(query, query, *rotary), turned(query, query, *rotary), strict=True):
        close(one, other, torch.float32)


@needs_triton
def test_inputs_that_are_not_contiguous(interpreter):
    interpreter(check_views)


def check_saved():
    from kernels.swiglu import reference, swiglu

    counts = []
    for function in (swiglu, reference):
        gate, up = drawn(64).requires_grad_(), drawn(64).requires_grad_()
        saved = set()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, saved=saved: saved.add(x.data_ptr()) or x, lambda x: x
        ):
            out = function(gate, up)
        counts.append(len(saved))
        del out
    assert counts == [2, 3]


@needs_triton
def test_swiglu_keeps_one_tensor_less_than_torch(interpreter):
    interpreter(check_saved)


def test_kernels_can_be_imported_and_their_references_used_without_triton():
    code = """
import sys
sys.modules["triton"] = None
import importlib.machinery, importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else found(name, *rest)
import torch
from kernels import add_rms_norm, cross_entropy, lora_swiglu, rope, swiglu
x = torch.ones(2, 4)
swiglu.reference(x, x), add_rms_norm.reference(x, x, x[0], 1e-5)
cross_entropy.reference(x, torch.tensor([0, 1]), 4, -100)
try:
    swiglu.swiglu(x, x)
except ValueError as error:
    assert "pip install 'triton" in str(error)
else:
    raise SystemExit("not refused")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def check_rotate_and_store(dtype):
    from kernels.decode import rotate_and_store

    rows, heads, key_heads, slots, width = 3, 5, 2, 4, 24
    guarded = Guarded()
    lengths = torch.tensor([0, 3, 6])  # the last one writes over its third token
    projected = guarded.hold(drawn(rows, heads + 2 * key_heads, width, dtype=dtype))
    rotary = rotary_angles(lengths[:, None], width, 1e4)
    rings = [
        guarded.hold(drawn(rows, key_heads, slots, width, seed=i, dtype=dtype)) for i in (1, 2)
    ]
    before = [ring.clone() for ring in rings]
    cos, sin = (guarded.hold(x.flatten(1)) for x in rotary)
    with guarded.outputs():
        query = rotate_and_store(projected, cos, sin, lengths, *rings, heads)
    turned = apply_rotary(projected[:, None, : heads + key_heads], rotary)[:, 0]
    close(query, turned[:, :heads], dtype)
    new = (turned[:, heads:], projected[:, heads + key_heads :])
    for ring, old, value in zip(rings, before, new, strict=True):
        for row, length in enumerate(lengths):
            close(ring[row, :, length % slots], value[row], dtype)
            old[row, :, length % slots] = ring[row, :, length % slots]
        assert torch.equal(ring, old)  # nothing else was touched
    guarded.check()


def check_attend_ring(dtype, rows, heads, key_heads, slots, lengths, programs):
    from kernels import decode

    guarded = Guarded()
    width = 16
    query = guarded.hold(drawn(rows, heads, width, dtype=dtype))
    keys, values = (
        guarded.hold(drawn(rows, key_heads, slots, width, seed=i, dtype=dtype)) for i in (1, 2)
    )
    lengths = torch.tensor(lengths)
    expected = []
    for row, length in enumerate(lengths):
        seen = min(int(length) + 1, slots)
        q = query[row].double().unflatten(0, (key_heads, -1))
        k, v = (x[row, :, :seen].double() for x in (keys, values))
        expected.append(scaled_dot_product_attention(q, k, v).flatten(0, 1))
        keys[row, :, seen:] = values[row, :, seen:] = float("nan")  # nobody looks there
    with pytest.MonkeyPatch.context() as patch, guarded.outputs():
        patch.setattr(decode, "PROGRAMS", programs)
        out = decode.attend_ring(query, keys, values, lengths)
    close(out, torch.stack(expected), dtype)
    guarded.check()


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_new_token_is_rotated_and_stored(interpreter, dtype):
    interpreter(check_rotate_and_store, dtype)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("rows", "heads", "key_heads", "slots", "lengths", "programs"),
    [
        (1, 1, 1, 1, [0], 1),
        (3, 6, 2, 70, [0, 63, 200], 512),  # the first has one key: all pieces but one are empty
        (2, 4, 4, 300, [64, 150], 16),
        (2, 34, 2, 130, [129, 128], 4),  # more heads for one key head than a block has rows
    ],
)
def test_attention_of_the_newest_token(
    interpreter, dtype, rows, heads, key_heads, slots, lengths, programs
):
    interpreter(check_attend_ring, dtype, rows, heads, key_heads, slots, lengths, programs)


def check_gemv(dtype, width, outputs, norm, gated, add):
    from kernels.gemv import gemv

    guarded = Guarded()
    x = guarded.hold(drawn(1, width, dtype=dtype))
    weight = guarded.hold((drawn(outputs * (1 + gated), width, seed=1) / width**0.5).to(dtype))
    scale = guarded.hold((1 + drawn(width, seed=2)).to(dtype)) if norm else None
    added = guarded.hold(drawn(1, outputs, seed=3, dtype=dtype)) if add else None
    with guarded.outputs():
        out = gemv(x, weight, norm=scale, eps=1e-5, gated=gated, add=added)
    exact = x.double()
    if scale is not None:
        exact = rms_norm(exact, (width,), scale.double(), 1e-5)
    expected = exact @ weight.double().T
    if gated:
        first, second = expected.chunk(2, -1)
        expected = silu(first) * second
    close(out, expected if added is None else expected + added, dtype)
    guarded.check()


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("width", "outputs"), [(1, 1), (2, 3), (600, 5), (4100, 2)])
def test_product_of_one_row(interpreter, dtype, width, outputs):
    for norm, gated, add in ((False, False, True), (True, True, False), (True, False, False)):
        interpreter(check_gemv, dtype, width, outputs, norm, gated, add)


def check_swiglu_of_halves(dtype):
    from kernels.swiglu import reference, swiglu_of_halves

    for rows, width in ((1, 1), (3, 1025), (0, 4)):
        guarded = Guarded()
        both = guarded.hold(drawn(rows, 2 * width, dtype=dtype))
        with guarded.outputs():
            out = swiglu_of_halves(both)
        close(out, reference(*both.double().chunk(2, -1)), dtype)
        guarded.check()


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_swiglu_of_halves(interpreter, dtype):
    interpreter(check_swiglu_of_halves, dtype)


def check_adamw(shape, first):
    from kernels.adamw import Update, adamw_, reference_

    guarded = Guarded()
    weight, grad = drawn(*shape), drawn(*shape, seed=1)
    moments = [(drawn(*shape, seed=2) / 9).bfloat16(), drawn(*shape, seed=3).square().bfloat16()]
    # Sixteenths, whose moments fp32 holds exactly: then chance alone decides how they are rounded.
    exact = [(drawn(*shape, seed=n) * 16).round() / 16 for n in (4, 5, 6)]
    exact = [exact[0], exact[1].bfloat16(), exact[2].abs().bfloat16()]
    update = Update(1e-2, (0.9, 0.95), eps=1e-8, decay=0.1, step=3, seed=1 << 30)
    for tensors, betas in (((grad, *moments), update.betas), (exact, (0.75, 0.75))):
        ours = [guarded.hold(x) for x in (weight, *tensors)]
        expected = [x.clone() for x in (weight, *tensors)]
        adamw_(*ours, update._replace(betas=betas), first)
        reference_(*expected, update._replace(betas=betas), first)
        for x, y in zip(ours, expected, strict=True):
            close(x, y, x.dtype)
        if tensors is exact:
            assert all(torch.equal(x, y) for x, y in zip(ours[1:], expected[1:], strict=True))
    guarded.check()


@needs_triton
@pytest.mark.parametrize("first", [0, 4096, 2**33 - 1000])
@pytest.mark.parametrize("shape", [(1,), (3, 341), (2, 1025), (0, 3)])
def test_adamw_with_moments_in_16_bits(interpreter, shape, first):
    interpreter(check_adamw, shape, first)


def compile_all(dtype):
    """Compile every kernel for an H100 with the compiler that triton brings."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from kernels import (
        adamw,
        add_rms_norm,
        cross_entropy,
        decode,
        gemv,
        lora_swiglu,
        rope,
        swiglu,
    )

    forward, backward = lora_swiglu.FORWARD, lora_swiglu.BACKWARD
    x, f, b, n, i = "*" + dtype, "*fp32", "*bf16", "*i64", "i32"
    numbers = ["fp32"] * 6
    for kernel, types, constants in (
        (cross_entropy._softmax_gradient, [x, "*i64", f, i, i, i], [4096]),
        (add_rms_norm._forward, [x, x, x, x, x, f, i, "fp32"], [4096]),
        (add_rms_norm._backward, [x, x, x, x, f, x, f, i, i], [4096, 16]),
        (rope._kernel, [x, x, f, f, x, x, "fp32"], [32, 8, 128, 32, 8, 64]),
        (swiglu._forward, [x, x, x, i], [1024]),
        (swiglu._backward, [x, x, x, x, x, i], [1024]),
        (swiglu._halves, [x, x, i], [1024]),
        (lora_swiglu._forward, [x] * 6 + [i, i], [8, 16, *forward[:2], "ieee"]),
        (
            lora_swiglu._backward,
            [x] * 10 + [f, i, i],
            [8, 16, *backward[:2], backward.stages, "ieee"],
        ),
        (decode._rotate_and_store, [x, f, f, n, x, x, x, i], [32, 8, 128, 128]),
        (decode._attend_piece, [x, x, x, n, f, f, i, "fp32"], [8, 4, 16, 128, 64, "ieee"]),
        (decode._join_pieces, [f, f, x, i], [64, 128]),
        (gemv._gemv, [x, x, x, x, x, i, "fp32"], [4096, True, False, False, *gemv.NORMED[:2], 1]),
        (gemv._gemv, [x, x, x, x, x, i, "fp32"], [4096, True, True, False, *gemv.GATED[:2], 8]),
        (gemv._gemv, [x, x, x, x, x, i, "fp32"], [14336, False, False, True, *gemv.PLAIN[:2], 1]),
        (adamw._update, [f, f, b, b, i, "i64", i, *numbers], [1024, adamw.MIX]),
    ):
        names = kernel.arg_names
        constexprs = dict(zip(names[len(types) :], constants, strict=True))
        signature = dict(zip(names, types, strict=False)) | dict.fromkeys(constexprs, "constexpr")
        source = ASTSource(kernel, signature, constexprs)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert compiled.asm["cubin"]


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_kernels_compile_for_a_gpu(dtype):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(compile_all, dtype).result()
