"""A decode step in C, built where a compiler is found: all layers of a new token in one call.

For CPUs. PyTorch's step spends its time on products of few rows, which none of its libraries reads
fast, and on some thirty operations between them per layer (docs/performance.md). The step of
`kernels/cpu` reads the weights as they lie, so that nothing is copied but norms and what adapters
are merged into. It is compiled for this processor once, in a second or two, and kept in the user's
cache; without a compiler, and of many sequences, `model.packed` decodes instead.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
import threading
from functools import cache, cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

import kernels
from model.cache import Cache
from model.packed import PackedMistral, can_pack, is_plain, merged
from model.ring import Ring
from model.rotary import rotary_angles
from model.transformer import Block, Mistral

SOURCES = Path(kernels.__file__).parent / "cpu"
FLAGS = (
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-fopenmp", "-shared", "-fPIC"),
)
COMPILERS = ("gcc", "cc")
MOST_ROWS = 32
"""Sequences up to which the step is not the slower one; it is made for few, libraries for many."""
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64


class _Layer(ctypes.Structure):
    """`Layer` of decode_step.c."""

    _fields_ = [
        (name, _POINTER)
        for name in (
            *("q", "k", "v", "o", "gate", "up", "down"),
            *("first_norm", "second_norm", "keys", "values"),
        )
    ]


class _Network(ctypes.Structure):
    """`Network` of decode_step.c."""

    _fields_ = [
        *(
            (name, _NUMBER)
            for name in (
                *("layers", "width", "heads", "key_heads", "head_width", "feed_forward"),
                *("ids", "bf16"),
            )
        ),
        ("eps", ctypes.c_float),
        *((name, _POINTER) for name in ("embedding", "head", "norm")),
        ("layer", ctypes.POINTER(_Layer)),
    ]


def can_compile(model: Mistral) -> bool:
    """Whether the step would work here, and can be built."""
    dtype = model.lm_head.weight.dtype
    alike = all(p.dtype == dtype for p in model.parameters() if p.ndim > 1)
    return alike and is_plain(model) and library() is not None


@cache
def library() -> ctypes.CDLL | None:
    """The built step; None where it cannot be built, or would hardly be faster."""
    if b"avx512f" not in _processor():  # elsewhere it has not been measured
        return None
    named = os.environ.get("CC")
    for compiler in [shlex.split(named)] if named else [[name] for name in COMPILERS]:
        try:
            found = ctypes.CDLL(str(_built(compiler)))
        except (OSError, subprocess.SubprocessError):
            continue
        found.decode_space.restype = _NUMBER
        found.decode_step.restype = None
        return found
    return None


def _built(compiler: list[str]) -> Path:
    """The library's file, compiled now unless it was before: by this compiler, of these sources,
    for this processor. Its name ends in its digest, so that a damaged one is made anew."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    parts = [version, " ".join([*compiler, *FLAGS]).encode(), _processor()]
    parts += [file.read_bytes() for file in sorted(SOURCES.iterdir())]
    place, name = _cache(), f"decode_step-{_digest(*parts)}"
    for file in place.glob(f"{name}-*.so"):
        if file.stem == f"{name}-{_digest(file.read_bytes())}":
            return file
        file.unlink()
    descriptor, made = tempfile.mkstemp(suffix=".so", dir=place)
    os.close(descriptor)
    command = [*compiler, *FLAGS, "-o", made, str(SOURCES / "decode_step.c"), "-lm"]
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=120)
        file = place / f"{name}-{_digest(Path(made).read_bytes())}.so"
        Path(made).replace(file)  # whole, or not at all
    finally:
        Path(made).unlink(missing_ok=True)
    return file


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cache() -> Path:
    """The user's folder for what can be made again, or one for this process alone."""
    try:
        given = os.environ.get("XDG_CACHE_HOME")
        place = (Path(given) if given else Path.home() / ".cache") / "jiuzhou"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Nobody else may have put there what this process will run.
        if os.access(place, os.W_OK) and place.stat().st_uid == os.getuid():
            return place
    except (OSError, RuntimeError):  # no home, or a file in its place
        pass
    return Path(_temporary().name)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """Removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="jiuzhou-")


def _processor() -> bytes:
    """What `-march=native` depends on: a cache may be shared by unequal machines."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return f"{platform.machine()} {platform.processor()}".encode()
    lines = file.read_text(encoding="utf-8").splitlines()
    known = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(known)})).encode()


class NativeMistral:
    """The network's decode step: `native(tokens, cache)` is `model(tokens, cache=cache)`.

    Several threads may call it at once, each with a cache of its own. Matrices are read where they
    lie, norms and what an adapter was merged into are copies: a change of the network asks for a
    new `NativeMistral`.
    """

    def __init__(self, model: Mistral) -> None:
        self.model, self.config = model, model.config
        self.dtype = model.lm_head.weight.dtype
        self.kept: list[Tensor] = []  # what the pointers below point at
        self.layers = (_Layer * self.config.num_hidden_layers)()
        for layer, block in zip(self.layers, model.model.layers, strict=True):
            assert isinstance(block, Block)
            attention, mlp = block.self_attn, block.mlp
            for name in _PROJECTIONS:
                setattr(layer, name[0], self._keep(merged(getattr(attention, name))))
            for name in ("gate", "up", "down"):
                setattr(layer, name, self._keep(merged(getattr(mlp, f"{name}_proj"))))
            layer.first_norm = self._keep(block.input_layernorm.weight.detach().float())
            layer.second_norm = self._keep(block.post_attention_layernorm.weight.detach().float())
        self.pointers = {
            "embedding": self._keep(model.model.embed_tokens.weight.detach()),
            "head": self._keep(model.lm_head.weight.detach()),
            "norm": self._keep(model.model.norm.weight.detach().float()),
        }
        self.own = threading.local()  # of each thread: what it works in

    def _keep(self, x: Tensor) -> int:
        x = x.contiguous()
        self.kept.append(x)
        return x.data_ptr()

    @cached_property
    def many(self) -> PackedMistral | None:
        """What decodes more than a few dozen sequences."""
        return PackedMistral(self.model) if can_pack(self.model) else None

    def _network(self, ring: Ring) -> _Network:
        """What the C code is told of the network and of this ring."""
        config = self.config
        layers = type(self.layers).from_buffer_copy(self.layers)
        for layer, keys, values in zip(layers, ring.keys, ring.values, strict=True):
            assert keys.dtype == self.dtype
            layer.keys, layer.values = keys.data_ptr(), values.data_ptr()
        return _Network(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            key_heads=config.num_key_value_heads,
            head_width=config.head_size,
            feed_forward=config.intermediate_size,
            ids=len(self.model.lm_head.weight),
            bf16=self.dtype == torch.bfloat16,
            eps=config.rms_norm_eps,
            layer=layers,
            **self.pointers,
        )

    def _space(self, floats: int) -> Tensor:
        """Memory of this thread."""
        space = getattr(self.own, "space", None)
        if space is None or space.numel() < floats:
            space = self.own.space = torch.empty(floats, dtype=torch.float32, device="cpu")
        return space

    def __call__(self, tokens: Int[Tensor, "N 1"], cache: Cache) -> Float[Tensor, "N 1 V"]:
        code, ring, rows = library(), cache.ring, len(tokens)
        assert code is not None
        if rows > MOST_ROWS and self.many is not None:
            return self.many(tokens, cache)
        assert rows == len(ring.lengths) == len(cache.sequences)
        known = range(len(self.model.model.embed_tokens.weight))
        if not all(id in known for id in tokens[:, 0].tolist()):
            raise IndexError(f"an id of {tokens.flatten().tolist()} is not below {known.stop}")
        ring.reserve(max(ring.lengths) + 1)
        network = self._network(ring)
        threads = torch.get_num_threads()
        sizes = [_NUMBER(n) for n in (rows, ring.slots, threads)]
        space = self._space(code.decode_space(ctypes.byref(network), *sizes))
        lengths = torch.tensor(ring.lengths, device="cpu")
        width = self.config.head_size
        cos, sin = rotary_angles(lengths[:, None], width, self.config.rope_theta)
        # The halves of a head turn by the same angles; signs are the second half's.
        turns = torch.cat([cos[..., : width // 2], sin[..., width // 2 :]], -1)
        logits = torch.empty(rows, 1, network.ids, dtype=self.dtype, device="cpu")
        tokens = tokens.long().contiguous()
        inputs = [_POINTER(x.data_ptr()) for x in (tokens, lengths)]
        outputs = [_POINTER(x.data_ptr()) for x in (turns, space, logits)]
        code.decode_step(*(ctypes.byref(network), sizes[0], *inputs, sizes[1], *outputs, sizes[2]))
        ring.lengths[:] = [length + 1 for length in ring.lengths]
        return logits
