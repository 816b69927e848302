"""Networks and decode steps of Triton kernels, in the interpreter, are the plain ones."""

import weakref
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from inference.generation.decoders import cuda_graph as recorded
from inference.generation.decoders.cuda_graph import CudaGraphDecoder, DecodeStep
from inference.generation.engine import Engine
from model.documents import Documents
from tests.unit.inference.generation.decoders.test_cuda_graph import drawn_network

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="needs triton: pip install 'triton>=3.6'"
)


PROMPTS = [[1, 2, 3], [5] * 22, [7, 8, 9] * 9]


def losses_and_gradients(network, tokens, documents):
    network.zero_grad()
    losses = network(tokens, documents=documents, labels=tokens.roll(-1, 1))
    losses.total.backward()
    return [losses.total.detach(), losses.rows, *(p.grad.clone() for p in network.parameters())]


def check_training():
    from kernels import launch

    network = drawn_network(window=6)
    tokens = torch.randint(network.config.num_tokens, (2, 24))
    segments = torch.ones(2, 24, dtype=torch.int32)
    segments[0, 9:] = 2
    documents = Documents.from_segments(segments)
    expected = losses_and_gradients(network, tokens, documents)
    called = []

    def use_triton(x):
        called.append(x.dtype)
        return True

    with pytest.MonkeyPatch.context() as patch:
        for module in ("ops", "loss"):
            patch.setattr(f"model.{module}.use_triton", use_triton)
        ours = losses_and_gradients(network, tokens, documents)
        with torch.no_grad():
            logits = network(tokens, documents=documents)
    assert called
    assert not launch.use_triton(torch.zeros(1))  # a CPU has no kernels
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(logits, network(tokens, documents=documents))


def test_a_network_of_kernels_is_the_network(interpreter):
    interpreter(check_training)


def check_step(window, lora, prompts):
    network = drawn_network(window=window, lora=lora).requires_grad_(False)
    engine = Engine(network, decoder="plain")
    caches = [engine.new_cache(len(prompts), 60) for _ in range(2)]
    ids, _ = (engine.prefill(prompts, cache).argmax(-1) for cache in caches)
    layers = [recorded._Layer(block) for block in network.model.layers]
    step = DecodeStep(network, layers, caches[1].storage)
    for _ in range(4):  # a window of 24 is passed by the second prompt, and was by the third
        expected = engine.decode(ids, caches[0])
        step.tokens.copy_(ids)
        torch.testing.assert_close(step.run(), expected, rtol=1e-4, atol=1e-4)
        ids = expected.argmax(-1)
    assert step.lengths.tolist() == caches[0].lengths


@pytest.mark.parametrize(
    ("window", "lora", "prompts"),
    [
        (None, False, PROMPTS),
        (24, False, PROMPTS),
        (24, True, PROMPTS[:2]),
        (None, False, PROMPTS[:1]),
        (24, False, PROMPTS[1:2]),
        (24, True, PROMPTS[1:2]),
    ],
)
def test_a_step_is_the_networks(interpreter, window, lora, prompts):
    interpreter(check_step, window, lora, prompts)


class Graph:
    """Runs the step anew where a recording would."""

    recorder = None
    replays = 0

    def replay(self):
        Graph.replays += 1
        self.recorder._logits.copy_(self.recorder._step.run())


@contextmanager
def capturing(graph):
    """What a device would note and not do: the lengths stay."""
    lengths = []
    run = DecodeStep.run

    def noted(self):
        before = self.lengths.clone()
        out = run(self)
        self.lengths.copy_(before)
        lengths.append(before)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecodeStep, "run", noted)
        yield
    assert len(lengths) == 1


@contextmanager
def nothing(*_):
    yield


def check_recording():
    stream = SimpleNamespace(wait_stream=lambda other: None)
    cuda = SimpleNamespace(
        Stream=lambda: stream,
        stream=nothing,
        current_stream=lambda: stream,
        CUDAGraph=Graph,
        graph=capturing,
    )
    network = drawn_network(window=40).requires_grad_(False)
    plain, ours = Engine(network, decoder="plain"), Engine(network, decoder="plain")
    before = {name: p.clone() for name, p in network.named_parameters()}
    Graph.recorder = ours.decoder = CudaGraphDecoder(network)
    torch_ = SimpleNamespace(**{name: getattr(torch, name) for name in ("tensor", "cat")})
    torch_.zeros_like, torch_.addmm, torch_.cuda = torch.zeros_like, torch.addmm, cuda
    records = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "torch", torch_)
        record = CudaGraphDecoder._record
        noted = lambda self, storage: records.append(len(storage.lengths)) or record(self, storage)  # noqa: E731
        patch.setattr(CudaGraphDecoder, "_record", noted)

        def read(prompts, caches):
            plain.prefill(prompts, caches[1])
            return plain.prefill(prompts, caches[0]).argmax(-1)

        caches = [engine.new_cache(3, 30) for engine in (plain, ours)]
        ids = read(PROMPTS, caches)

        def decode(ids, engine=ours):
            expected = plain.decode(ids, caches[0])
            found = engine.decode(ids, caches[1])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
            assert caches[0].lengths == caches[1].lengths
            return expected.argmax(-1)

        ids = decode(decode(ids))
        assert records == [3]
        ids = decode(ids, plain)  # somebody else goes on in between
        ids = decode(ids)
        assert records == [3, 3]  # the storage has grown
        for cache in caches:
            cache.keep([2, 0])
        ids = decode(decode(ids[[2, 0]]))
        assert records == [3, 3, 2]
        keys = weakref.ref(caches[1].storage.keys[0])
        del cache
        caches[:] = [engine.new_cache(1, 9) for engine in (plain, ours)]
        assert keys() is None  # no recording keeps memory that nobody goes on with
        ids = read([[4, 2]], caches)
        decode(decode(ids))
        assert records == [3, 3, 2, 1]
    assert Graph.replays == 2 + 1 + 2 + 2
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())


def test_a_recording_follows_its_batch(interpreter):
    interpreter(check_recording)
