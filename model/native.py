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
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import kernels
from model.cache import Cache
from model.lora_linear import LoraLinear
from model.packed import PackedMistral, can_pack, merged
from model.rotary import rotary_angles
from model.transformer import Block, Mistral

SOURCES = Path(kernels.__file__).parent / "cpu"
FLAGS = (
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-fopenmp", "-shared", "-fPIC"),
)
COMPILERS = ("cc", "gcc", "clang")
MOST_ROWS = 32
"""Sequences up to which the step is the faster one; it is made for few, libraries for many."""
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
    """Whether the step would work here, and has been built."""
    weight = model.lm_head.weight
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and all(p.dtype == weight.dtype for p in model.parameters() if p.ndim > 1)
        # Nobody has wrapped, sharded or replaced what the step goes round.
        and all(type(layer) is Block for layer in model.model.layers)
        and all(
            # A small update would be lost in rounding the sum to bfloat16.
            type(x) is nn.Linear or (type(x) is LoraLinear and weight.dtype == torch.float32)
            for x in linears
        )
        and library() is not None
    )


@cache
def library() -> ctypes.CDLL | None:
    """The built step; None where it cannot be built."""
    environment = os.environ.get("CC")
    compilers = (environment,) if environment else COMPILERS
    compiler = next((path for name in compilers if (path := shutil.which(name))), None)
    if compiler is None:
        return None
    try:
        found = ctypes.CDLL(str(_built(compiler, FLAGS)))
    except (OSError, subprocess.SubprocessError):
        return None
    found.decode_space.restype = _NUMBER
    found.decode_step.restype = None
    return found


def _built(compiler: str, flags: Sequence[str]) -> Path:
    """The library's file, compiled now unless it was before: by this compiler, of these sources,
    for this processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    parts = [version, " ".join(flags).encode(), _processor()]
    parts += [file.read_bytes() for file in sorted(SOURCES.iterdir())]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    place = _cache()
    file = place / f"decode_step-{digest}.so"
    if not file.exists():
        descriptor, made = tempfile.mkstemp(suffix=".so", dir=place)
        os.close(descriptor)
        command = [compiler, *flags, "-o", made, str(SOURCES / "decode_step.c"), "-lm"]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=120)
            Path(made).replace(file)  # whole, or not at all
        finally:
            Path(made).unlink(missing_ok=True)
    return file


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
    return Path(tempfile.mkdtemp(prefix="jiuzhou-"))


def _processor() -> bytes:
    """What `-march=native` depends on: a cache may be shared by unequal machines."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return f"{platform.machine()} {platform.processor()}".encode()
    lines = file.read_text(encoding="utf-8").splitlines()
    known = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(known)})).encode()


class NativeMistral:
    """The network's decode step: `native(tokens, cache)` is `model(tokens, cache=cache)`."""

    def __init__(self, model: Mistral) -> None:
        self.config = config = model.config
        self.dtype = model.lm_head.weight.dtype
        self.kept: list[Tensor] = []  # what the pointers below point at
        self.embedding = model.model.embed_tokens.weight.detach()
        self.layers = (_Layer * config.num_hidden_layers)()
        for layer, block in zip(self.layers, model.model.layers, strict=True):
            assert isinstance(block, Block)
            attention, mlp = block.self_attn, block.mlp
            for name in _PROJECTIONS:
                setattr(layer, name[0], self._keep(merged(getattr(attention, name))))
            for name in ("gate", "up", "down"):
                setattr(layer, name, self._keep(merged(getattr(mlp, f"{name}_proj"))))
            layer.first_norm = self._keep(block.input_layernorm.weight.detach().float())
            layer.second_norm = self._keep(block.post_attention_layernorm.weight.detach().float())
        self.network = _Network(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            key_heads=config.num_key_value_heads,
            head_width=config.head_size,
            feed_forward=config.intermediate_size,
            ids=len(model.lm_head.weight),
            bf16=self.dtype == torch.bfloat16,
            eps=config.rms_norm_eps,
            embedding=self._keep(self.embedding),
            head=self._keep(model.lm_head.weight.detach()),
            norm=self._keep(model.model.norm.weight.detach().float()),
            layer=self.layers,
        )
        self.space = torch.empty(0, dtype=torch.float32)
        self.many = PackedMistral(model) if can_pack(model) else None

    def _keep(self, x: Tensor) -> int:
        x = x.contiguous()
        self.kept.append(x)
        return x.data_ptr()

    def __call__(self, tokens: Int[Tensor, "N 1"], cache: Cache) -> Float[Tensor, "N 1 V"]:
        code, ring, rows = library(), cache.ring, len(tokens)
        assert code is not None
        if self.many is not None and rows > MOST_ROWS:
            return self.many(tokens, cache)
        assert rows == len(ring.lengths) == len(cache.sequences)
        assert tokens.dtype == torch.int64
        known = range(len(self.embedding))
        assert all(id in known for id in tokens[:, 0].tolist()), "C code checks no index"
        ring.reserve(max(ring.lengths) + 1)
        for layer, keys, values in zip(self.layers, ring.keys, ring.values, strict=True):
            assert keys.dtype == self.dtype
            layer.keys, layer.values = keys.data_ptr(), values.data_ptr()
        threads = torch.get_num_threads()
        sizes = [_NUMBER(n) for n in (rows, ring.slots, threads)]
        needed = code.decode_space(ctypes.byref(self.network), *sizes)
        if self.space.numel() < needed:
            self.space = torch.empty(needed, dtype=torch.float32)
        lengths = torch.tensor(ring.lengths)
        width = self.config.head_size
        cos, sin = rotary_angles(lengths[:, None], width, self.config.rope_theta)
        # The halves of a head turn by the same angles; signs are the second half's.
        turns = torch.cat([cos[..., : width // 2], sin[..., width // 2 :]], -1)
        logits = torch.empty(rows, 1, self.network.ids, dtype=self.dtype)
        tokens = tokens.contiguous()
        inputs = [_POINTER(x.data_ptr()) for x in (tokens, lengths)]
        outputs = [_POINTER(x.data_ptr()) for x in (turns, self.space, logits)]
        code.decode_step(
            *(ctypes.byref(self.network), sizes[0], *inputs, sizes[1], *outputs, sizes[2])
        )
        ring.lengths[:] = [length + 1 for length in ring.lengths]
        return logits
