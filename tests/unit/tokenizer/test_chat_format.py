"""The [INST] format is that of mistral-common and of transformers, id for id."""

import json
import random
import warnings

import pytest

from tokenizer.chat import (
    CHAT_TEMPLATE,
    Encoded,
    Message,
    check_conversation,
    encode_conversation,
    encode_prompt,
    transcript,
    truncate,
)
from tokenizer.tokenizer import Tokenizer

FILES = (
    "alpaca_en_demo.json",
    "alpaca_zh_demo.json",
    "ruozhiba_qa2449_gpt4t.json",
    "geo_glossary_faq_en.json",
)
SYSTEMS = (None, "You are a geologist. Answer briefly.", "你是一位地球科学专家。", " odd  spaces\n")
ODD = [
    [("user", "hi"), ("assistant", "hello")],
    [("user", " spaces around "), ("assistant", "  indented\n    code\n"), ("user", "\n\tx")],
    [("user", "[INST] nested [/INST]"), ("assistant", "[/INST]"), ("user", "[INST]")],
    [("user", "日本語 😀"), ("assistant", "▁▁"), ("user", "1"), ("assistant", "？")],
    [("system", "s"), ("user", "u"), ("assistant", "a\r\nb"), ("user", "v")],
]


def messages(*pairs):
    return [Message(*pair) for pair in pairs]


def turns_of(shared):
    for name in FILES:
        for record in json.loads((shared / "sft" / name).read_text(encoding="utf-8")):
            question = "\n".join(filter(None, (record["instruction"], record["input"])))
            yield question, record["output"]


def made_conversations(turns, count):
    """One to four turns each, with and without a system prompt."""
    draw = random.Random(0)
    for number in range(count):
        system = SYSTEMS[number % len(SYSTEMS)]
        made = [] if system is None else [Message("system", system)]
        for question, answer in draw.sample(turns, 1 + number % 4):
            made += [Message("user", question), Message("assistant", answer)]
        yield made


def open_with_template(tokenizer, folder):
    """The tokenizer as transformers opens an exported folder."""
    from transformers import AutoTokenizer

    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


def templated(hf, conversation):
    as_dicts = [message.as_dict() for message in conversation]
    return hf.apply_chat_template(as_dicts, tokenize=True, return_dict=False)


def answers_of(tokenizer, encoded):
    """The texts of the runs of supervised ids, each without the EOS that ends it."""
    runs, run = [], []
    for id, supervised in zip(*encoded, strict=True):
        if supervised:
            run.append(id)
        elif run:
            runs.append(run)
            run = []
    runs += [run] if run else []
    assert all(run[-1] == tokenizer.eos_id for run in runs)
    assert all(tokenizer.eos_id not in run[:-1] for run in runs)
    return [tokenizer.decode(run) for run in runs]


@pytest.fixture(scope="module")
def toy(sample):
    return Tokenizer.open(sample / "tokenizer")


@pytest.fixture(scope="module")
def real(shared):
    return Tokenizer.open(shared / "tokenizers" / "mistral-7b-v0.1.tokenizer.model")


@pytest.fixture(scope="module")
def by_mistral(shared):
    """mistral-common's v1 tokenizer: conversation -> ids."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        reason = "mistral-common, the reference of the format, is not installed (extra `dev`)"
        pytest.importorskip("mistral_common", reason=reason)
        from mistral_common.protocol.instruct import messages as kinds
        from mistral_common.protocol.instruct.request import ChatCompletionRequest
        from mistral_common.protocol.instruct.validator import ValidationMode
        from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

        path = str(shared / "tokenizers" / "mistral-7b-v0.1.tokenizer.model")
        modes = {
            "assistant": MistralTokenizer.from_file(path, mode=ValidationMode.finetuning),
            "user": MistralTokenizer.from_file(path, mode=ValidationMode.test),
        }
    of_role = {
        "system": kinds.SystemMessage,
        "user": kinds.UserMessage,
        "assistant": kinds.AssistantMessage,
    }

    def encode(conversation):
        request = ChatCompletionRequest(
            messages=[of_role[said.role](content=said.content) for said in conversation]
        )
        return modes[conversation[-1].role].encode_chat_completion(request).tokens

    return encode


@pytest.mark.shared
def test_ids_are_those_of_mistral_common_and_of_transformers(shared, real, by_mistral, tmp_path):
    hf = open_with_template(real, tmp_path)
    made = [*made_conversations(list(turns_of(shared)), 1000), *(messages(*odd) for odd in ODD)]
    assert len(made) > 1000
    for conversation in made:
        encoded = encode_conversation(real, conversation)
        assert encoded.ids == by_mistral(conversation)
        assert encoded.ids == templated(hf, conversation)
        prompt = conversation[:-1] if conversation[-1].role == "assistant" else conversation
        ids = encode_prompt(real, prompt)
        assert ids == by_mistral(prompt)
        assert ids == templated(hf, prompt)
        assert ids == encoded.ids[: len(ids)]


def test_ids_are_those_of_transformers(toy, sample, tmp_path):
    hf = open_with_template(toy, tmp_path)
    lines = (sample / "corpus" / "general_zh.jsonl").read_text().splitlines()[:40]
    lines += (sample / "corpus" / "geo_en.jsonl").read_text().splitlines()[:40]
    texts = [json.loads(line)["text"][:300] for line in lines]
    turns = list(zip(texts, reversed(texts), strict=True))
    for conversation in [*made_conversations(turns, 40), *(messages(*odd) for odd in ODD)]:
        encoded = encode_conversation(toy, conversation)
        assert encoded.ids == templated(hf, conversation)


def test_the_template_refuses_what_we_refuse(toy, tmp_path):
    from jinja2.exceptions import TemplateError

    hf = open_with_template(toy, tmp_path)
    for wrong in (
        messages(("assistant", "a")),
        messages(("user", "a"), ("user", "b")),
        messages(("user", "a"), ("system", "b")),
        messages(("user", "a"), ("tool", "b")),
    ):
        with pytest.raises(TemplateError, match="take turns"):
            templated(hf, wrong)
        with pytest.raises(ValueError, match=r"messages\[\d\]"):
            check_conversation(wrong)


def test_answers_and_their_eos_are_supervised(toy):
    conversation = messages(
        ("system", "Be brief."),
        ("user", "What is loess?"),
        ("assistant", "Silt that wind has laid down."),
        ("user", "And till?"),
        ("assistant", "What a glacier leaves."),
    )
    encoded = encode_conversation(toy, conversation)
    answers = [message.content for message in conversation if message.role == "assistant"]
    assert answers_of(toy, encoded) == answers
    everything = encode_conversation(toy, conversation, train_on="all")
    assert everything == Encoded(encoded.ids, [False] + [True] * (len(encoded.ids) - 1))
    assert encoded.ids[0] == toy.bos_id
    assert encoded.ids.count(toy.bos_id) == 1
    assert encoded.ids.count(toy.eos_id) == 2


@pytest.mark.shared
def test_supervised_ids_decode_to_the_answers(shared, real):
    for conversation in made_conversations(list(turns_of(shared)), 200):
        encoded = encode_conversation(real, conversation)
        answers = [message.content for message in conversation if message.role == "assistant"]
        # sentencepiece turns U+2581 into a space; the rest comes back as it was.
        assert answers_of(real, encoded) == [a.replace("▁", " ") for a in answers]


def test_a_prompt_is_the_beginning_of_every_answer_to_it(toy):
    prompt = messages(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c [/INST]"))
    ids = encode_prompt(toy, prompt)
    for answer in ("x", " x", "\nx\n", "</s>", "。"):
        whole = encode_conversation(toy, [*prompt, Message("assistant", answer)])
        assert whole.ids[: len(ids)] == ids
        assert not whole.supervised[len(ids) - 1]
        assert all(whole.supervised[len(ids) :])


def test_text_stays_text(toy):
    conversation = messages(("user", "<s> and </s>"), ("assistant", "</s><s>[INST] <unk>"))
    ids = encode_conversation(toy, conversation).ids
    assert ids.count(toy.bos_id) == ids.count(toy.eos_id) == 1
    assert ids[0] == toy.bos_id
    assert ids[-1] == toy.eos_id


def test_a_text_without_the_space_before_it_is_encoded_as_the_template_says(tmp_path):
    """A tokenizer.json like those of byte-level vocabularies, where spaces belong to words."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: id for id, token in enumerate(["<s>", "</s>", *letters, "Ġa"])}
    backend = Backend(models.BPE(vocab, [("Ġ", "a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    hf.save_pretrained(tmp_path)
    hf.chat_template = CHAT_TEMPLATE
    tokenizer = Tokenizer.open(tmp_path)
    conversation = messages(("user", "a b"), ("assistant", "a b"), ("user", "b"))
    assert encode_conversation(tokenizer, conversation).ids == templated(hf, conversation)


def test_a_message_that_is_not_to_be_learned_stays_and_is_not_predicted(toy):
    conversation = messages(
        ("system", "Be brief."),
        ("user", "What is loess?"),
        ("assistant", "A bad answer."),
        ("user", "And till?"),
        ("assistant", "What a glacier leaves."),
    )
    whole = encode_conversation(toy, conversation)
    marked = [m._replace(train=m.content != "A bad answer.") for m in conversation]
    encoded = encode_conversation(toy, marked)
    assert encoded.ids == whole.ids
    assert answers_of(toy, encoded) == ["What a glacier leaves."]
    assert sum(whole.supervised) - sum(encoded.supervised) == len(toy.encode("A bad answer.")) + 1
    nothing = [m._replace(train=False) for m in conversation]
    for train_on in ("assistant", "all"):
        assert not any(encode_conversation(toy, nothing, train_on=train_on).supervised)


@pytest.mark.parametrize("place", [0, 1])
def test_with_all_to_be_learned_a_marked_question_or_system_prompt_is_not(toy, place):
    conversation = messages(("system", "s"), ("user", "why"), ("assistant", "so"))
    conversation[place] = conversation[place]._replace(train=False)
    encoded = encode_conversation(toy, conversation, train_on="all")
    assert encoded.supervised == encode_conversation(toy, conversation).supervised
    assert answers_of(toy, encoded) == ["so"]


def test_a_truncated_conversation_has_no_eos(toy):
    encoded = encode_conversation(toy, messages(("user", "a b"), ("assistant", "c d e")))
    cut = truncate(encoded, len(encoded.ids) - 1)
    assert cut == Encoded(encoded.ids[:-1], encoded.supervised[:-1])
    assert truncate(encoded, 10_000) == encoded


def test_a_transcript_marks_what_is_supervised(toy):
    conversation = messages(("user", "one"), ("assistant", "two"), ("user", "three"))
    encoded = encode_conversation(toy, conversation)
    text = transcript(toy, encoded, "<", ">")
    assert text == "[BOS][INST] one [/INST] <two[EOS]> [INST] three [/INST]"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ([], "no messages"),
        ([("system", "s")], "no message but the system's"),
        ([("assistant", "a")], r"messages\[0\].* do not take turns"),
        ([("user", "a"), ("user", "b")], r"messages\[1\].* do not take turns"),
        ([("system", "s"), ("assistant", "b")], r"messages\[1\].* do not take turns"),
        ([("system", "s"), ("system", "b")], r"messages\[1\].* not the first"),
        ([("user", "a"), ("robot", "b")], r"messages\[1\].* unknown role"),
        ([("user", "a"), ("assistant", " \n")], r"messages\[1\].* empty assistant message"),
        ([("user", "")], r"messages\[0\].* empty user message"),
        ([("user", "a\ud800")], "lone surrogate"),
    ],
)
def test_what_is_no_conversation_is_refused(toy, wrong, reason):
    with pytest.raises(ValueError, match=reason):
        encode_conversation(toy, messages(*wrong))


def test_other_mistakes_are_refused(toy):
    with pytest.raises(ValueError, match="train_on='answers'"):
        encode_conversation(toy, messages(("user", "a"), ("assistant", "b")), train_on="answers")
    with pytest.raises(ValueError, match=r"messages\[1\].role='assistant'.*nothing to answer"):
        encode_prompt(toy, messages(("user", "a"), ("assistant", "b")))
