"""Generation: what is drawn, when it ends, and what is shown of it."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.generation.batch import GenerateConfig, write_answers
from inference.generation.detokenizer import IncrementalDetokenizer
from inference.generation.engine import Engine
from inference.generation.generate import Answer, generate, stream
from inference.generation.load import LoadConfig, load_for_generation
from inference.generation.sampling import (
    SamplingConfig,
    choose,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize,
    uniform,
)
from pretrained.safetensors_folder import save_pretrained
from scripts.generate import answer_file as script_answer_file
from tests.helpers.toy import hf_twin, random_tokens, toy_config, toy_model
from tokenizer.tokenizer import Tokenizer

PROMPTS = [[1, 5, 9], [2], [7] * 20, [3, 4, 5, 6, 7, 8, 9, 10, 11], [30, 31]]
GREEDY = SamplingConfig(max_new_tokens=30, temperature=0.0)
SAMPLED = SamplingConfig(max_new_tokens=30, temperature=1.5, top_p=0.9, min_p=0.01, seed=3)


@pytest.fixture(scope="module")
def model():
    return toy_model(toy_config())


@pytest.fixture(scope="module")
def folder(sample, tmp_path_factory):
    """An HF folder of a toy with the sample's tokenizer."""
    tokenizer = Tokenizer.open(sample / "tokenizer")
    path = tmp_path_factory.mktemp("hf") / "toy"
    config = toy_config(vocab_size=tokenizer.vocab_size + 7, num_padded_ids=7)
    save_pretrained(toy_model(config), path, tokenizer)
    return path


logits_strategy = st.lists(
    st.one_of(st.integers(-4, 4).map(float), st.floats(-8, 8)), min_size=1, max_size=12
)


def kept(logits):
    return {n for n, x in enumerate(logits[0].tolist()) if x > -math.inf}


def softmax(values):
    weights = [math.exp(x - max(values)) for x in values]
    return [w / sum(weights) for w in weights]


@given(logits_strategy, st.integers(1, 15))
def test_top_k_by_counting(values, k):
    expected = {n for n, x in enumerate(values) if sum(y > x for y in values) < k}
    assert kept(keep_top_k(torch.tensor([values], dtype=torch.float64), k)) == expected


@given(logits_strategy, st.floats(0.01, 0.99))
def test_top_p_is_the_smallest_set_that_reaches_p(values, p):
    p = round(p, 3) + 1e-7  # off the sums that equal weights give
    chosen, total = set(), 0.0
    probabilities = softmax(values)
    for n in sorted(range(len(values)), key=lambda n: (-values[n], n)):
        if total >= p:
            break
        chosen.add(n)
        total += probabilities[n]
    assert kept(keep_top_p(torch.tensor([values], dtype=torch.float64), p)) == chosen


@given(logits_strategy, st.floats(0.01, 1))
def test_min_p_against_the_most_probable(values, p):
    probabilities = softmax(values)
    found = kept(keep_min_p(torch.tensor([values], dtype=torch.float64), p))
    for n, x in enumerate(probabilities):
        if abs(x - p * max(probabilities)) > 1e-9:
            assert (n in found) == (x > p * max(probabilities))
    assert values.index(max(values)) in found


def test_filters_and_penalty_equal_those_of_transformers():
    from transformers.generation import logits_process as hf

    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).double() * 3
    ids = random_tokens(toy_config(vocab_size=50), 4, 9)
    seen = torch.zeros(4, 50, dtype=torch.bool).scatter_(1, ids, True)
    for ours, theirs in (
        (penalize(logits, seen, 1.3), hf.RepetitionPenaltyLogitsProcessor(1.3)),
        (penalize(logits, seen, 0.8), hf.RepetitionPenaltyLogitsProcessor(0.8)),
        (keep_top_k(logits, 7), hf.TopKLogitsWarper(7)),
        (keep_top_p(logits, 0.8), hf.TopPLogitsWarper(0.8)),
        (keep_min_p(logits, 0.1), hf.MinPLogitsWarper(0.1)),
    ):
        torch.testing.assert_close(ours, theirs(ids, logits.clone()))


def test_draws_follow_the_probabilities():
    probabilities = torch.tensor([[0.5, 0.2, 0.0, 0.3]])
    numbers = [uniform(1, 2, position) for position in range(4000)]
    drawn = choose(probabilities.log().expand(4000, -1), None, numbers, SamplingConfig())
    shares = torch.bincount(drawn, minlength=4) / 4000
    torch.testing.assert_close(shares, probabilities[0], rtol=0, atol=0.03)
    assert shares[2] == 0


@pytest.mark.parametrize("number", [0.5 / 2**32, 1 - 0.5 / 2**32])
def test_the_outermost_numbers_draw_possible_ids(number):
    logits = torch.tensor([[-math.inf, 0.0, -1.0, -math.inf]])
    assert choose(logits, None, [number], SamplingConfig()).item() in (1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equally_probable_ids_the_first_is_greedy(dtype):
    logits = torch.zeros(3, 300, dtype=dtype)
    logits[1, [7, 70, 290]] = 2.0
    logits[2, 1:] = -1.0
    assert choose(logits, None, [], SamplingConfig(temperature=0.0)).tolist() == [0, 7, 0]


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("decoder", ["plain", "cpu_onednn"])
@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("window", [8, None])
def test_an_answer_does_not_depend_on_its_batch(monkeypatch, window, config, decoder, idle):
    """Sequences leave at different times, and prompts are of different lengths."""
    engine = Engine(toy_model(toy_config(sliding_window=window)), decoder=decoder)
    if idle:  # finished sequences stay for a while, as where a smaller batch is recorded anew
        monkeypatch.setattr(
            engine, "should_compact", lambda alive, cache: 2 * alive <= len(cache.lengths)
        )
    together = generate(engine, PROMPTS, config, eos_ids=[11, 12, 13])
    assert len({len(answer.ids) for answer in together}) > 1
    for n, prompt in enumerate(PROMPTS):
        alone = generate(engine, [prompt], config, eos_ids=[11, 12, 13], indices=[n])
        assert alone == [together[n]]


def test_seeds(model):
    answers = [
        generate(model, PROMPTS, SamplingConfig(max_new_tokens=20, seed=seed)) for seed in (1, 1, 2)
    ]
    assert answers[0] == answers[1]
    assert all(one != two for one, two in zip(answers[0], answers[2], strict=True))
    same = generate(model, [PROMPTS[0]] * 2, SamplingConfig(max_new_tokens=20))
    assert same[0] != same[1]  # one prompt twice is two draws


@pytest.mark.parametrize("window", [8, None])
@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_greedy_ids_equal_those_of_transformers(window, penalty):
    model = toy_model(toy_config(sliding_window=window))
    twin = hf_twin(model)
    twin.generation_config.eos_token_id = None
    config = SamplingConfig(max_new_tokens=30, temperature=0.0, repetition_penalty=penalty)
    answers = generate(model, PROMPTS, config)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        theirs = twin.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=30,
            do_sample=False,
            repetition_penalty=penalty,
            pad_token_id=0,
        )
        assert theirs[0, len(prompt) :].tolist() == answer.ids


def test_padded_ids_never_appear():
    model = toy_model(toy_config(num_padded_ids=50))
    with torch.no_grad():
        model.lm_head.weight[11:] *= 10
    config = SamplingConfig(max_new_tokens=40, temperature=100.0, repetition_penalty=1.1)
    answers = generate(model, [[1], [2, 3]], config)
    ids = {id for answer in answers for id in answer.ids}
    assert ids <= set(range(11))
    assert len(ids) > 5
    greedy = generate(model, [[1]], GREEDY)
    assert max(greedy[0].ids) < 11


def test_where_answers_end(model):
    free = generate(model, PROMPTS, GREEDY)
    assert {answer.finished for answer in free} == {"length"}
    eos = free[0].ids[4]
    cut = generate(model, PROMPTS[:1], GREEDY, eos_ids=[eos])[0]
    assert cut == Answer(free[0].ids[: free[0].ids.index(eos)], "", "eos")
    short = toy_model(toy_config(sliding_window=None, max_position_embeddings=24))
    for prompt, answer in zip(PROMPTS, generate(short, PROMPTS, GREEDY), strict=True):
        assert len(prompt) + len(answer.ids) == 24
        assert answer.finished == "context"


def test_a_window_has_no_longest_text():
    model = toy_model(toy_config(max_position_embeddings=4))
    assert generate(model, [[7] * 20], GREEDY)[0].finished == "length"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], r"prompts\[1\] is empty; begin it with BOS"),
        ([1, 61], r"prompts\[1\] has the id 61; the model has tokens 0 to 58"),
        ([59], r"prompts\[1\] has the id 59"),
        ([-1], r"prompts\[1\] has the id -1"),
        (
            [1] * 24,
            r"prompts\[1\] has 24 tokens; .* fewer than max_position_embeddings=24: shorten",
        ),
    ],
)
def test_bad_prompts_are_refused(prompt, message):
    shape = {"sliding_window": None, "max_position_embeddings": 24, "num_padded_ids": 2}
    with pytest.raises(ValueError, match=message):
        stream(toy_model(toy_config(**shape)), [[1], prompt], GREEDY)


def test_no_prompts_no_answers(model):
    assert generate(model, [], GREEDY) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.nan),
        ("stop", ["a", ""]),
    ],
)
def test_wrong_sampling_parameters_are_refused(field, value):
    with pytest.raises(ValueError, match=f"^{field}"):
        SamplingConfig(**{field: value})


def test_stop_strings_need_text(model):
    with pytest.raises(ValueError, match="stop: stop strings need `decode`"):
        stream(model, [[1]], SamplingConfig(stop=["x"]))


def spell(ids):
    """A decoder of bytes."""
    return bytes(ids).decode("utf-8", "replace")


@given(st.text(max_size=20), st.lists(st.text("ab\u6771\U0001f600", min_size=1, max_size=3)))
def test_streamed_text_is_never_taken_back(text, stops):
    """Byte by byte; with stop strings, the text before the one that ends first."""
    shown = IncrementalDetokenizer(spell, stops)
    parts = []
    for byte in text.encode():
        parts.append(shown.add(byte))
        assert "\ufffd" not in parts[-1] or "\ufffd" in text
        assert text.startswith("".join(parts))
        if shown.stopped:
            break
    parts.append(shown.close())
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    assert "".join(parts) == (text[: min(ends)[1]] if ends else text)
    assert shown.stopped == bool(ends)


def test_bytes_that_never_become_a_character_are_shown_at_the_end():
    shown = IncrementalDetokenizer(spell)
    assert [shown.add(byte) for byte in (0x61, 0xE6, 0x9D)] == ["a", "", ""]
    assert shown.close() == "\ufffd"


@pytest.mark.parametrize(
    "text", ["the rock is old", "\u9ec4\u571f\u9ad8\u539f \U0001f30b lava", " a\n\nb  c"]
)
def test_streaming_with_a_real_tokenizer(sample, text):
    tokenizer = Tokenizer.open(sample / "tokenizer")
    ids = tokenizer.encode(text)
    for cut in range(len(ids)):
        head = [tokenizer.bos_id, *ids[:cut]]
        shown = IncrementalDetokenizer(tokenizer.decode, context=head)
        parts = [shown.add(id) for id in ids[cut:]] + [shown.close()]
        assert all("\ufffd" not in part for part in parts[:-1])
        if "\ufffd" not in tokenizer.decode(head):
            assert tokenizer.decode(head) + "".join(parts) == tokenizer.decode(ids)


def test_stop_strings_across_token_borders(model):
    def decode(ids):
        return "".join(f"<{id}>" for id in ids)

    free = generate(model, PROMPTS, GREEDY, decode=decode, continue_text=False)
    for n, answer in enumerate(free):
        assert answer.text == decode(answer.ids)
        stop = f"{answer.ids[6]}><{answer.ids[7]}"
        config = SamplingConfig(max_new_tokens=30, temperature=0.0, stop=["nothing", stop])
        cut = generate(model, PROMPTS, config, decode=decode, continue_text=False)[n]
        assert cut.text == answer.text[: answer.text.find(stop)]
        assert cut.finished == "stop"
        assert len(cut.ids) < len(answer.ids)


def test_events_are_the_answers(model):
    events = []
    answers = generate(model, PROMPTS, SAMPLED, decode=spell, eos_ids=[11], on_event=events.append)
    for n, answer in enumerate(answers):
        mine = [event for event in events if event.prompt == n]
        assert "".join(event.text for event in mine) == answer.text
        assert [event.finished for event in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1].finished == answer.finished


def test_the_folder_opens_with_its_padding(folder):
    loaded = load_for_generation(LoadConfig(folder=str(folder), device="cpu"))
    assert loaded.engine.model.config.num_tokens == loaded.tokenizer.vocab_size
    assert loaded.eos_ids == [loaded.tokenizer.eos_id]
    with pytest.raises(ValueError, match="dtype='half': one of auto"):
        LoadConfig(folder=str(folder), dtype="half")
    with pytest.raises(ValueError, match="no such folder"):
        load_for_generation(LoadConfig(folder=str(folder / "absent")))


def answer_file(folder, prompts, out, **changes):
    options = {"max_new_tokens": 8, "temperature": 1.0, "batch_size": 3, "device": "cpu"} | changes
    config = GenerateConfig(folder=str(folder), prompts=str(prompts), out=str(out), **options)
    return write_answers(config, load_for_generation(config))


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    lines = [{"id": n, "prompt": "rock " * (n + 1)} for n in range(7)]
    lines.insert(4, {"messages": [{"role": "user", "content": "what is loess?"}]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_answers_survive_a_cut_anywhere(folder, prompts, tmp_path):
    whole = tmp_path / "whole.jsonl"
    assert answer_file(folder, prompts, whole) == 8
    content = whole.read_bytes()
    lines = [json.loads(line) for line in content.splitlines()]
    assert [line["index"] for line in lines] == list(range(8))
    assert [line.get("id") for line in lines] == [0, 1, 2, 3, None, 4, 5, 6]
    out = tmp_path / "cut.jsonl"
    answer_file(folder, prompts, out)
    for cut in (0, 1, len(content) // 3, len(content) // 2, len(content) - 1, len(content)):
        out.write_bytes(content[:cut])
        done = content[:cut].count(b"\n")
        assert answer_file(folder, prompts, out, batch_size=2) == 8 - done
        assert out.read_bytes() == content


def test_open_questions_are_answered_as_their_prompts_in_the_chat_template(folder, tmp_path):
    """The same file as from prompts=, so that a file that scripts.answer wrote is continued."""
    asked = [{"id": "q1", "question": "what is loess?"}, {"question": "rock"}]
    questions, prompts = tmp_path / "questions.jsonl", tmp_path / "prompts.jsonl"
    questions.write_text("".join(json.dumps(line) + "\n" for line in asked))
    lines = [{"id": "q1", "prompt": "what is loess?"}, {"id": "2", "prompt": "rock"}]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out.jsonl"
    assert answer_file(folder, prompts, out, chat=True) == 2
    content = out.read_bytes()
    out.write_bytes(content[: content.index(b"\n") + 1])
    options = {"max_new_tokens": 8, "temperature": 1.0, "device": "cpu", "out": str(out)}
    script_answer_file(GenerateConfig(folder=str(folder), questions=str(questions), **options))
    assert out.read_bytes() == content
    missing = GenerateConfig(folder="absent", questions=str(tmp_path / "no.jsonl"), **options)
    with pytest.raises(ValueError, match=r"questions=.*no such file"):
        script_answer_file(missing)


def test_answers_of_other_settings_are_refused(folder, prompts, tmp_path):
    out = tmp_path / "out.jsonl"
    answer_file(folder, prompts, out)
    before = out.read_bytes()
    with pytest.raises(ValueError, match=r"different settings \(seed\); choose another out="):
        answer_file(folder, prompts, out, seed=1)
    prompts.write_text(prompts.read_text() + '{"prompt": "more"}\n')
    with pytest.raises(ValueError, match=r"different settings \(prompts\)"):
        answer_file(folder, prompts, out)
    assert out.read_bytes() == before
    out.with_name("out.jsonl.settings.json").unlink()
    with pytest.raises(ValueError, match=r"exists, but out\.jsonl\.settings\.json"):
        answer_file(folder, prompts, out)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "  "}', "line 1: the prompt is empty"),
        ("{", "line 1: "),
        ("[]", "line 1: give an object with either"),
        ("{}", "line 1: give an object with either"),
        ('{"prompt": "a", "messages": []}', "line 1: give an object with either"),
        ('{"prompt": 3}', "line 1: `prompt` must be a text, not 3"),
        ('{"messages": [{"role": "user"}]}', "line 1: `messages` must be a list"),
        ('{"messages": []}', "line 1: messages"),
        ("", "the file has no prompt"),
    ],
)
def test_bad_prompt_files_are_refused(folder, tmp_path, line, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        answer_file(folder, path, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of prompt="),
        ({"prompt": "a", "prompts": "b", "out": "c"}, "give exactly one of prompt="),
        ({"prompts": "b", "questions": "c", "out": "d"}, "give exactly one of prompt="),
        ({"prompts": "b"}, "prompts= and questions= need out="),
        ({"questions": "b"}, "prompts= and questions= need out="),
        ({"prompt": "a", "out": "c"}, "prompt= does not take it"),
        ({"prompt": "a", "batch_size": 0}, "batch_size=0"),
        ({"prompt": "a", "top_p": 2.0}, "top_p=2.0"),
    ],
)
def test_contradictory_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GenerateConfig(folder="m", **options)


def test_an_unknown_decoder_is_refused(model):
    with pytest.raises(ValueError, match="decoder='fast': one of auto, plain, cpu_onednn, cuda"):
        LoadConfig(folder="x", decoder="fast")
    with pytest.raises(ValueError, match="decoder='fast': one of"):
        Engine(model, decoder="fast")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the decoder may be available")
def test_a_decoder_that_is_not_available_names_its_requirements(model):
    with pytest.raises(
        ValueError, match=r"decoder=cuda_graph is not available here: it needs .* a"
    ):
        Engine(model, decoder="cuda_graph")


def test_the_old_name_of_the_decoder_is_answered_with_the_new_one():
    from conf.suggest import check_overrides

    with pytest.raises(ValueError, match=r"pack.*decoder"):
        check_overrides("generate", ["folder=x", "prompt=a", "pack=false"])
