"""A network ready to generate: prompts in, logits out, then one token per sequence and pass."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inference.generation.cache.cache import Cache, extend
from inference.generation.decoders.cpu_onednn import PackedMistral, can_pack
from inference.generation.decoders.cuda_graph import RecordedMistral, can_record
from inference.generation.decoders.guard import Watch, departure
from model.documents import Documents
from model.transformer import Mistral

PREFILL_TOKENS = 4096
"""Tokens of one prefill pass: bounds the activations, whatever comes."""


class Runner:
    """Prefill and decode; keep one while the weights stay as they are.

    Args:
        model: the network; it is called as it is, with whatever was wrapped or replaced in it.
        pack: decode with a specialised step: on a CPU with a copy of the weights that is read
            faster (`inference.generation.decoders.cpu_onednn`), on a CUDA device as a recorded
            graph (`inference.generation.decoders.cuda_graph`). None:
            where such a step is available. In fp32 the copy is made when two sequences are first
            decoded at once; weights with an adapter are merged and copied at once. The step
            computes the stock network only: a network that is changed, before or after the runner
            is made, decodes with its forward pass.

    Raises:
        ValueError: packing was asked for where it cannot be had; also by `prefill` and `decode`, if
            the network was changed since.
    """

    def __init__(self, model: Mistral, *, pack: bool | None = None) -> None:
        self.model, self.pack = model, pack
        self.packed: PackedMistral | RecordedMistral | None = None
        self._choose()

    def _choose(self) -> None:
        """Set what decodes the network as it is now."""
        model = self.model
        self._watch = Watch(model)
        self.packed = None
        if self.pack is False:
            return
        kinds = {PackedMistral: can_pack, RecordedMistral: can_record}
        fitting = [kind for kind, fits in kinds.items() if fits(model)]
        if self.pack and not fitting:
            changed = departure(model)
            raise ValueError(
                f"pack=true: {changed}, and the specialised decode steps compute the stock network "
                "only; undo the change, or use pack=null or false"
                if changed
                else "pack=true needs a whole, unwrapped network: on a CPU in float32 or bfloat16 "
                "(with an adapter in float32) and a PyTorch with MKL and oneDNN, or on a CUDA "
                "device with triton; use pack=false, or null to choose automatically"
            )
        self.packed = fitting[0](model) if fitting else None

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.model.lm_head.weight.device

    def new_cache(self, sequences: int, capacity: int) -> Cache:
        """An empty cache with room for so many tokens per sequence."""
        # What the projections put out, which need not be what the weights are kept in.
        dtype = self.model.model.embed_tokens.weight.dtype
        options = {"dtype": dtype, "device": self.device, "capacity": capacity}
        return Cache(self.model.config, sequences, **options)

    @torch.inference_mode()
    def prefill(
        self, prompts: Sequence[Sequence[int]], cache: Cache, pass_tokens: int = PREFILL_TOKENS
    ) -> Float[Tensor, "N V"]:
        """Fill an empty cache with prompts; returns the logits after each.

        Args:
            pass_tokens: of one pass; several short prompts share one, a long one takes several.
        """
        if self.pack is not False and self._watch.changed():
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

    def drops(self, alive: int, cache: Cache) -> bool:
        """Whether a batch of which so many sequences go on should let the others go now.

        At once; but where the step must then be recorded anew, not before half of it is idle, or an
        idle sequence would make the rings longer.
        """
        if not isinstance(self.packed, RecordedMistral) or 2 * alive <= len(cache.lengths):
            return True
        storage = cache.storage
        return storage.window is None and max(cache.lengths) >= storage.slots

    @torch.inference_mode()
    def decode(self, ids: Int[Tensor, " N"], cache: Cache) -> Float[Tensor, "N V"]:
        """Add one id to each sequence; returns the logits after it."""
        if self.packed is not None and self._watch.touched():
            self._choose()
        if self.packed is not None:
            return self.packed(ids, cache)
        return extend(self.model, ids[:, None], cache)


def _passes(lengths: list[int], budget: int) -> Iterator[list[tuple[int, slice]]]:
    """Pieces (sequence, tokens of it) of each pass, in order; a pass goes on from no sequence
    together with others, since packed attention is for documents that begin in it."""
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
