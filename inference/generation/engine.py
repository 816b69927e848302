"""A network prepared for generation: prefill of prompts, then one token per sequence and step."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inference.generation.cache.cache import Cache, extend
from inference.generation.decoders.cpu_onednn import OneDnnDecoder, supports_onednn
from inference.generation.decoders.cuda_graph import CudaGraphDecoder, supports_cuda_graph
from inference.generation.decoders.guard import Watch, departure
from model.documents import Documents
from model.transformer import Mistral

PREFILL_TOKENS = 4096
"""Tokens of one prefill pass, a bound on the memory of activations."""
DECODERS = {
    "cpu_onednn": (OneDnnDecoder, supports_onednn),
    "cuda_graph": (CudaGraphDecoder, supports_cuda_graph),
}
"""Fast decoders: the class, and the check that it can decode a network."""
REQUIREMENTS = {
    "cpu_onednn": "an unwrapped network on a CPU in float32 or bfloat16 (with an adapter in "
    "float32), and a PyTorch with MKL and oneDNN",
    "cuda_graph": "an unwrapped network on a CUDA device, a head width that is a power of two, and "
    "triton",
}


def check_decoder(name: str) -> None:
    """ValueError unless a decoder has this name."""
    names = ("auto", "plain", *DECODERS)
    if name not in names:
        raise ValueError(f"decoder={name!r}: one of {', '.join(names)}")


class Engine:
    """Prefill and decode; make a new engine after the weights have changed.

    Args:
        model: the network; wrappers and hooks around it or its modules are respected.
        decoder: implementation of the decode step. `plain`: the network's forward pass.
            `cpu_onednn`: the same over weights in oneDNN's layout. `cuda_graph`: a recorded graph
            of fused kernels. `auto`: a fast decoder if one is available. Fast decoders compute the
            stock network only: a network that is changed, before or after the engine is made, is
            decoded by its forward pass.

    Raises:
        ValueError: the decoder is unknown or not available; also from `prefill` and `decode`, if
            the network was changed in the meantime.
    """

    def __init__(self, model: Mistral, *, decoder: str = "auto") -> None:
        check_decoder(decoder)
        self.model, self.requested = model, decoder
        self.decoder: OneDnnDecoder | CudaGraphDecoder | None = None
        self._choose()

    def _choose(self) -> None:
        """Choose the decoder for the network in its present state."""
        self._watch = Watch(self.model)
        self.decoder = None
        for name, (kind, supports) in DECODERS.items():
            if self.requested in ("auto", name) and supports(self.model):
                self.decoder = kind(self.model)
                return
        if self.requested in DECODERS:
            changed = departure(self.model)
            raise ValueError(
                f"decoder={self.requested}: {changed}, and fast decoders compute the stock network "
                "only; undo the change, or use decoder=auto or plain"
                if changed
                else f"decoder={self.requested} is not available here: it needs "
                f"{REQUIREMENTS[self.requested]}; use decoder=auto or plain"
            )

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.model.lm_head.weight.device

    def new_cache(self, sequences: int, capacity: int) -> Cache:
        """An empty cache with room for `capacity` tokens per sequence."""
        # Dtype of the activations, which may differ from the dtype of the other weights.
        dtype = self.model.model.embed_tokens.weight.dtype
        config = self.model.config
        return Cache(config, sequences, dtype=dtype, device=self.device, capacity=capacity)

    @torch.inference_mode()
    def prefill(
        self, prompts: Sequence[Sequence[int]], cache: Cache, pass_tokens: int = PREFILL_TOKENS
    ) -> Float[Tensor, "N V"]:
        """Fill an empty cache with prompts; returns the logits after each prompt.

        Args:
            pass_tokens: tokens of one pass; short prompts share a pass, long ones take several.
        """
        if self.requested != "plain" and self._watch.changed():
            self._choose()
        logits: dict[int, Tensor] = {}
        for pieces in _passes([len(prompt) for prompt in prompts], pass_tokens):
            tokens: list[int] = []
            segments: list[int] = []
            for number, (n, place) in enumerate(pieces, start=1):
                tokens += prompts[n][place]
                segments += [number] * (place.stop - place.start)
            documents = Documents.from_segments(torch.tensor([segments])).to(self.device)
            part = cache.of([n for n, _ in pieces])
            row = torch.tensor([tokens], device=self.device)
            out = extend(self.model, row, part, documents)
            logits |= {n: x for (n, _), x in zip(pieces, out, strict=True)}
        return torch.stack([logits[n] for n in range(len(prompts))])

    def should_compact(self, alive: int, cache: Cache) -> bool:
        """Decide if the batch is compacted to its `alive` unfinished sequences.

        Always, except where a CUDA graph must then be recorded again: there only when half of the
        batch has finished, or when a finished sequence would make the storage grow.
        """
        if not isinstance(self.decoder, CudaGraphDecoder) or 2 * alive <= len(cache.lengths):
            return True
        storage = cache.storage
        return storage.window is None and max(cache.lengths) >= storage.slots

    @torch.inference_mode()
    def decode(self, ids: Int[Tensor, " N"], cache: Cache) -> Float[Tensor, "N V"]:
        """Add one id to each sequence; returns the logits after it."""
        if self.decoder is not None and self._watch.touched():
            self._choose()
        if self.decoder is not None:
            return self.decoder(ids, cache)
        return extend(self.model, ids[:, None], cache)


def _passes(lengths: list[int], budget: int) -> Iterator[list[tuple[int, slice]]]:
    """Pieces (sequence, its tokens) of each prefill pass, in order.

    A pass that continues a sequence holds no other sequence, because packed attention is for
    documents that begin in the pass.
    """
    waiting: list[tuple[int, slice]] = []
    free = budget
    for n, length in enumerate(lengths):
        if length > free and waiting:
            yield waiting
            waiting, free = [], budget
        if length > budget:
            for start in range(0, length, budget):
                yield [(n, slice(start, min(length, start + budget)))]
        else:
            waiting.append((n, slice(0, length)))
            free -= length
    if waiting:
        yield waiting
