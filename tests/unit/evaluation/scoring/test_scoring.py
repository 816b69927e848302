"""Shared prefixes, packing and trees change the cost of a score, not the score."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scoring import target_logits as reader
from evaluation.scoring.loglikelihood import score
from evaluation.scoring.requests import Request, Scored
from inference.generation.cache.prefix import Branches, Prefix, Tree
from model.adapters import add_lora
from model.lora.layer import LoraConfig
from model.transformer import Mistral
from model.weights import InitialWeights, fill
from tests.helpers.draws import examples
from tests.helpers.toy import random_tokens, randomize, toy_config, toy_model
from training.distributed import World, start_world
from training.parallelize import ParallelConfig, build_mesh, materialize, parallelize

PADDED = 3
WINDOW = 8


def network(**changes) -> Mistral:
    return toy_model(toy_config(num_padded_ids=PADDED, **changes))


MODELS = {window: network(sliding_window=window) for window in (None, 1, WINDOW)}


def draw(rng, count, known=61 - PADDED):
    return tuple(rng.randrange(known) for _ in range(count))


def make_requests(seed, prefixes, per_prefix, *, longest_body=12, longest_ending=5, endings=4):
    """Requests of unequal sizes behind prefixes of the given lengths, mixed."""
    rng = random.Random(seed)
    requests = []
    for prefix in [draw(rng, length) for length in prefixes]:
        for _ in range(per_prefix):
            body = draw(rng, rng.randint(1, longest_body))
            sizes = [rng.randint(1, longest_ending) for _ in range(rng.randint(0, endings))]
            requests.append(Request(prefix, body, tuple(draw(rng, size) for size in sizes)))
    rng.shuffle(requests)
    return requests


@torch.no_grad()
def log_probs(model, ids):
    """(T, V) of a text alone, by one plain pass."""
    return model(torch.tensor([ids]))[0, :, : model.config.num_tokens].double().log_softmax(-1)


def plainly(model, request: Request) -> Scored:
    """Every text alone, as the definition says."""
    context = request.prefix + request.body
    nats = math.nan
    endings, greedy = [], []
    for ending in request.endings or ((),):
        text = context + ending
        found = log_probs(model, text)
        each = [float(found[i, id]) for i, id in enumerate(text[1:])]
        nats = -math.fsum(each[: len(context) - 1])
        endings.append(-math.fsum(each[len(context) - 1 :]))
        places = range(len(context) - 1, len(text) - 1)
        greedy.append(all(int(found[i].argmax()) == text[i + 1] for i in places))
    count = len(request.endings)
    return Scored(nats, tuple(endings[:count]), tuple(greedy[:count]))


def close(scored, expected, rel=1e-5):
    found, wanted = ([s.context, *s.endings] for s in (scored, expected))
    return found == pytest.approx(wanted, rel=rel, abs=rel)


def check(model, requests, *batches):
    """Score with each size of a batch, and compare."""
    expected = [plainly(model, request) for request in requests]
    for batch_tokens in batches or (4096,):
        results = list(score(model, requests, batch_tokens=batch_tokens))
        assert sorted(index for index, _ in results) == list(range(len(requests)))
        for index, scored in results:
            assert close(scored, expected[index])
            assert scored.greedy == expected[index].greedy


@pytest.mark.parametrize("window", [None, 1, WINDOW])
def test_scores_are_those_of_each_text_alone(window):
    # No prefix, BOS alone, shorter than, equal to and longer than one and two windows.
    requests = make_requests(0, [0, 1, 5, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW], 2)
    check(MODELS[window], requests, 7, 4096)
    check(MODELS[window], requests[:2], 1)


@given(
    seed=st.integers(0, 1000),
    prefixes=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    per_prefix=st.integers(1, 3),
    longest_body=st.integers(1, 20),
    longest_ending=st.integers(1, 20),
    window=st.sampled_from([None, 1, WINDOW]),
    batch_tokens=st.integers(3, 100),
)
@examples(10)
def test_any_shape(seed, prefixes, per_prefix, longest_body, longest_ending, window, batch_tokens):
    options = {"longest_body": longest_body, "longest_ending": longest_ending, "endings": 2}
    requests = make_requests(seed, prefixes, per_prefix, **options)
    check(MODELS[window], requests, batch_tokens)


@pytest.mark.parametrize("window", [None, 40])
def test_texts_longer_than_a_block_of_queries(window):
    model = network(sliding_window=window)
    rng = random.Random(3)
    long = Request(draw(rng, 150), draw(rng, 200), (draw(rng, 140), draw(rng, 1)))
    # With 90, the long body goes through the prefix, in pieces.
    check(model, [long, *make_requests(4, [150], 8)], 4096, 90)


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": True},
        {"num_padded_ids": 0},
        {"num_key_value_heads": 4},
        {"model_type": "llama", "sliding_window": None},
    ],
    ids=["tied", "unpadded", "no groups", "llama"],
)
def test_any_network(changes):
    model = toy_model(toy_config(**({"num_padded_ids": PADDED} | changes)))
    check(model, make_requests(5, [4, 11], 3), 40)


def test_an_adapter_is_honoured():
    model = network()
    plain = dict(score(model, make_requests(6, [5], 4)))
    add_lora(model, LoraConfig(rank=2, alpha=4.0, targets=["q_proj", "down_proj"]))
    randomize(model, 0.3, seed=1)
    check(model, make_requests(6, [5], 4))
    changed = dict(score(model, make_requests(6, [5], 4)))
    assert not any(close(changed[n], plain[n]) for n in plain)


def test_bfloat16_is_as_near_to_the_exact_scores_as_plain_bfloat16():
    exact, rounded = network(), network().bfloat16()
    requests = make_requests(7, [3, 20], 6)
    errors = {"packed": 0.0, "alone": 0.0}
    results = dict(score(rounded, requests, batch_tokens=100))
    for index, request in enumerate(requests):
        wanted = plainly(exact, request)
        for name, found in (("packed", results[index]), ("alone", plainly(rounded, request))):
            pairs = zip(
                (found.context, *found.endings), (wanted.context, *wanted.endings), strict=True
            )
            errors[name] += sum(abs(a - b) for a, b in pairs)
    assert 0 < errors["packed"] < 1.3 * errors["alone"]


def test_neither_order_nor_batches_matter():
    model, requests = MODELS[WINDOW], make_requests(8, [1, 6, 30], 4)
    expected = dict(score(model, requests))
    order = list(range(len(requests)))
    random.Random(0).shuffle(order)
    for batch_tokens in (3, 25, 10**9):
        shuffled = score(model, [requests[n] for n in order], batch_tokens=batch_tokens)
        for index, scored in shuffled:
            assert close(scored, expected[order[index]])
            assert scored.greedy == expected[order[index]].greedy


def test_endings_with_the_same_ids_are_computed_once():
    """The bits of a product depend on the place of a row in it; equal choices must tie exactly."""
    model, rng = MODELS[WINDOW], random.Random(13)
    long, short = draw(rng, 9), draw(rng, 2)
    endings = (long, short, long, short[:1], short, short[:1], long)
    requests = [Request(draw(rng, 4), draw(rng, n + 1), endings) for n in range(5)]
    results, tokens, _ = count_work(model, requests)
    work = [len(r.prefix) + len(r.body) + len(long[1:]) + len(short[1:]) for r in requests]
    assert sum(tokens) == sum(work)
    for index, scored in results.items():
        a, b, c, d, e, f, g = scored.endings
        assert (a, b, d) == (c, e, f)
        assert a == g
        assert close(scored, plainly(model, requests[index]))
        assert len(scored.greedy) == 7


def test_greedy_says_what_greedy_decoding_gives():
    model, rng = MODELS[WINDOW], random.Random(9)
    requests, answers = [], []
    for _ in range(6):
        text = list(draw(rng, 9))
        for _ in range(4):
            text.append(int(log_probs(model, text)[-1].argmax()))
        best = tuple(text[9:])
        wrong = [(*best[:n], (best[n] + 1) % 58, *best[n + 1 :]) for n in range(4)]
        requests.append(Request(tuple(text[:4]), tuple(text[4:9]), (best, best[:1], *wrong)))
        answers.append((True, True, False, False, False, False))
    for index, scored in score(model, requests):
        assert scored.greedy == answers[index]


def test_padded_ids_are_never_likely():
    model = network()
    with torch.no_grad():  # padded ids would win everywhere
        model.lm_head.weight[-PADDED:] = 100 * model.lm_head.weight[:PADDED].sum()
        model.lm_head.weight[-1] *= -1
    requests = make_requests(10, [4], 6)
    check(model, requests)


def test_a_uniform_model_costs_the_logarithm_of_the_vocabulary():
    model = network()
    torch.nn.init.zeros_(model.lm_head.weight)
    for index, scored in score(model, requests := make_requests(11, [0, 9], 5)):
        request = requests[index]
        context = len(request.prefix) + len(request.body) - 1
        assert scored.context == pytest.approx(context * math.log(61 - PADDED), rel=1e-6)
        for nats, ending in zip(scored.endings, request.endings, strict=True):
            assert nats == pytest.approx(len(ending) * math.log(61 - PADDED), rel=1e-6)
            assert math.exp(nats / len(ending)) == pytest.approx(61 - PADDED, rel=1e-5)


def count_work(model, requests, **options):
    """Tokens of each forward pass, and positions that the head multiplied."""
    tokens, positions = [], []
    embedding, head = model.model.embed_tokens, model.lm_head
    plain = head.forward
    head.forward = lambda x: (positions.append(x.shape[:-1].numel()), plain(x))[1]
    hook = embedding.register_forward_hook(
        lambda _module, args, _out: tokens.append(args[0].numel())
    )
    try:
        results = dict(score(model, requests, **options))
    finally:
        hook.remove()
        del head.forward
    return results, tokens, sum(positions)


def test_prefixes_bodies_and_letters_are_computed_once():
    rng = random.Random(12)
    prefixes = [draw(rng, 40), draw(rng, 30)]
    letters, words = tuple((n,) for n in range(4)), (draw(rng, 3), draw(rng, 1), draw(rng, 5))
    bodies = [draw(rng, rng.randint(5, 9)) for _ in range(10)]
    requests = [Request(prefixes[n % 2], body, letters) for n, body in enumerate(bodies)]
    asked = sum(map(len, bodies))
    _, tokens, _ = count_work(network(), requests)
    assert sum(tokens) == 70 + asked
    assert len(tokens) == 4
    results, tokens, positions = count_work(network(), requests, context=False)
    assert sum(tokens) == 70 + asked
    # The head sees the last position of each body, and one that the network puts out, per pass.
    assert positions == len(bodies) + len(tokens)
    whole = dict(score(network(), requests))
    for index, scored in results.items():
        assert math.isnan(scored.context)
        assert scored.endings == pytest.approx(whole[index].endings, rel=1e-5)
    requests = [Request(request.prefix, request.body, words) for request in requests]
    _, tokens, _ = count_work(network(), requests)
    assert sum(tokens) == 70 + asked + len(bodies) * (2 + 0 + 4)


@pytest.mark.parametrize("batch_tokens", [16, 50])
def test_no_pass_is_larger_than_asked(batch_tokens):
    requests = make_requests(13, [0, 1, 70], 4, longest_body=60, longest_ending=3)
    _, tokens, _ = count_work(network(), requests, batch_tokens=batch_tokens)
    alone = max(sum(len(ending) - 1 for ending in r.endings) for r in requests)
    assert max(tokens) <= batch_tokens + alone
    fits = [r for r in requests if len(r.body) + alone <= batch_tokens]
    _, tokens, _ = count_work(network(), fits, batch_tokens=batch_tokens)
    assert max(tokens) <= batch_tokens


def test_logits_come_in_chunks(monkeypatch):
    requests = make_requests(14, [5], 8)
    expected = dict(score(MODELS[WINDOW], requests))
    monkeypatch.setattr(reader, "CHUNK_LOGITS", 3 * 58)
    for index, scored in score(MODELS[WINDOW], requests):
        assert close(scored, expected[index])
        assert scored.greedy == expected[index].greedy


def test_a_prefix_keeps_what_its_window_reaches_and_never_changes():
    model = MODELS[WINDOW]
    ids = random_tokens(model.config, 1, 50)
    prefix = Prefix()
    with torch.no_grad():
        for part in ids.split(20, 1):
            branches = Branches(model.config, prefix, [Tree(part.shape[1])], "cpu", extend=True)
            model(part, context=branches)
            prefix = branches.extended()
        assert prefix.length == 50
        assert prefix.stored == WINDOW - 1
        kept = [x.clone() for x in (*prefix.keys, *prefix.values)]
        trees = [Tree(4, (2, 3)), Tree(1), Tree(6)]
        tokens = random_tokens(model.config, 1, sum(tree.size for tree in trees))
        logits = model(tokens, context=Branches(model.config, prefix, trees, "cpu"))[0]
        for before, after in zip(kept, (*prefix.keys, *prefix.values), strict=True):
            assert torch.equal(before, after)
        whole = model(torch.cat([ids, tokens[:, 9:10]], 1))[0, -1]  # the second tree's token
    torch.testing.assert_close(logits[9], whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training):
    model = network().train(training)
    requests = make_requests(15, [5], 4)
    before = model(torch.tensor([[1, 2, 3]]))
    list(score(model, requests))
    next(score(model, requests, batch_tokens=4))  # broken off
    assert model.training == training
    assert not model.lm_head._forward_pre_hooks
    assert torch.equal(model(torch.tensor([[1, 2, 3]])), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_compiled_layers_run_as_they_were():
    model, requests = network(), make_requests(19, [5], 4)
    expected = dict(score(model, requests))
    for layer in model.model.layers:
        layer.compile(fullgraph=True)  # as training does
    assert dict(score(model, requests)) == expected


def test_nothing_to_score():
    assert list(score(network(), [])) == []


@pytest.mark.parametrize(
    ("request_", "options", "message"),
    [
        (Request((1,), (2,), ((3,),)), {"batch_tokens": 0}, "batch_tokens=0: must be at least 1"),
        (
            Request((1,), (2,), ((58,),)),
            {},
            "request 1 has the id 58, but the model has ids 0 to 57",
        ),
        (Request((1,), (2, -1), ()), {}, "request 1 has the id -1"),
        (Request((99,), (2,), ()), {}, "request 1 has the id 99"),
        (Request((1,) * 9, (2,) * 9, ((3,) * 3,)), {}, "request 1 has 21 tokens, .* takes "),
    ],
)
def test_bad_requests_are_refused_before_any_work(request_, options, message):
    model = network(sliding_window=None, max_position_embeddings=20)
    model.forward = None  # would fail
    with pytest.raises(ValueError, match=message):
        score(model, [Request((1,), (2,), ()), request_], **options)


def deal(model, requests, size, **options):
    """What each of some ranks yields, when none needs the others' weights."""
    worlds = [
        World(rank=rank, dp_size=size, device=torch.device("cpu"), threads=1)
        for rank in range(size)
    ]
    return [count_work(model, requests, world=world, **options) for world in worlds]


@pytest.mark.parametrize("batch_tokens", [12, 4096])
def test_ranks_share_the_work_and_agree_bit_for_bit(batch_tokens):
    requests = make_requests(16, [0, 1, 9, 30], 3)
    options = {"batch_tokens": batch_tokens}
    expected, alone, _ = count_work(MODELS[WINDOW], requests, **options)
    for size in (2, 3, 7):
        parts = deal(MODELS[WINDOW], requests, size, **options)
        found = [index for results, _, _ in parts for index in results]
        assert sorted(found) == list(range(len(requests)))
        for results, _, _ in parts:
            assert all(scored == expected[index] for index, scored in results.items())
        # Each makes as many passes, for sharded weights are gathered in each.
        (passes,) = {len(tokens) for _, tokens, _ in parts}
        longest = -(-30 // batch_tokens) + 1
        assert passes <= -(-len(alone) // size) + 2 * longest


SHAPE = toy_config(num_padded_ids=PADDED)


def test_weights_in_fp32_are_used_as_bfloat16_where_training_does():
    requests = make_requests(20, [1, 12], 4)
    with torch.device("meta"):
        model = Mistral(SHAPE)
    plain = Mistral(SHAPE)
    fill(plain, source := InitialWeights(plain, seed=3))
    with start_world("cpu") as world:
        config = ParallelConfig(dtype="bfloat16", checkpointing="full")
        parallelize(model, config, build_mesh(config, world))
        materialize(model, source, world.device)
        found = dict(score(model, requests, world=world))
    expected = dict(score(plain.bfloat16(), requests))
    assert all(close(found[index], expected[index]) for index in expected)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
