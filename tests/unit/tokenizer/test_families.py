"""Training ids, masks and prompts of model families are those of transformers' chat templates."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.helpers.chat_folders import (
    FAMILIES,
    IM,
    NEMO,
    SMOL,
    TEKKEN,
    THINKING,
    S,
    byte_level_folder,
    pieces,
    put,
    sentencepiece_folder,
)
from tokenizer.chat import (
    CHAT_TEMPLATE,
    Message,
    check_trainable,
    encode_conversation,
    encode_prompt,
    end_of_turn,
    template_of,
)
from tokenizer.template import RefusedByTemplate
from tokenizer.tokenizer import Tokenizer

USER = ["What is loess?", "And why do rivers bend? 黄土", "Where is it found", "  a\n b  "]
SAID = ["Silt that the wind has laid down.", "It wears away.\n\n    faster", "地壳之下。", "7"]
SYSTEM = "You are a geologist who answers briefly."
NO_SYSTEM = ("instruct_v02", "mistral_v03", "nemo", "gemma")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Family -> its folder, our tokenizer and that of transformers, each built once."""
    built = {}

    def open_family(name: str) -> tuple[Path, Tokenizer, AutoTokenizer]:
        if name not in built:
            folder = FAMILIES[name][0](tmp_path_factory.mktemp(name) / "folder")
            built[name] = folder, Tokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
        return built[name]

    return open_family


def conversation(turns: int, *, system: bool = False) -> list[Message]:
    said = [Message("system", SYSTEM)] if system else []
    for question, answer in zip(USER[:turns], SAID[:turns], strict=True):
        said += [Message("user", question), Message("assistant", answer)]
    return said


def templated(theirs: AutoTokenizer, messages: list[Message], **options: object) -> list[int]:
    dicts = [message.as_dict() for message in messages]
    return theirs.apply_chat_template(dicts, return_dict=False, **options)


def expected_mask(theirs, messages: list[Message], end: str, train_on_system: bool = False):
    """From the prompts of transformers: an answer reaches from its prompt to its end token."""
    whole = templated(theirs, messages)
    end_id = theirs.convert_tokens_to_ids(end)
    mask = [False] * len(whole)
    for place, message in enumerate(messages):
        if message.role == "assistant":
            prompt = templated(theirs, messages[:place], add_generation_prompt=True)
            assert whole[: len(prompt)] == prompt
            stop = whole.index(end_id, len(prompt)) + 1
            mask[len(prompt) : stop] = [True] * (stop - len(prompt))
    return mask


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_masks_and_prompts_are_those_of_transformers(opened, family):
    _, ours, theirs = opened(family)
    end = FAMILIES[family][1]
    for system in (False, True):
        for turns in (1, 2, 4):
            said = conversation(turns, system=system)
            if system and family in NO_SYSTEM:
                continue
            encoded = encode_conversation(ours, said)
            assert encoded.ids == templated(theirs, said)
            assert encoded.supervised == expected_mask(theirs, said, end)
            asked = templated(theirs, said[:-1], add_generation_prompt=True)
            assert encode_prompt(ours, said[:-1]) == asked
    assert end_of_turn(ours) == theirs.convert_tokens_to_ids(end)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_gives_the_same_ids(opened, family, tmp_path):
    folder, ours, theirs = opened(family)
    ours.save(tmp_path / "saved")
    again, after = (
        Tokenizer.open(tmp_path / "saved"),
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
    )
    assert (again.fingerprint, again.vocab_size) == (ours.fingerprint, ours.vocab_size)
    assert again.templates == ours.templates
    assert template_of(again).digest == template_of(ours).digest
    assert len(after) == len(theirs)
    assert after.special_tokens_map == theirs.special_tokens_map
    said = conversation(2)
    assert templated(after, said) == templated(theirs, said) == encode_conversation(again, said).ids
    for text in (*USER, *SAID, " x", "", "a<|im_start|>b", "</s>"):
        plain = again.encode(text)
        assert plain == ours.encode(text)
        if "<" not in text:
            assert plain == after(text, add_special_tokens=False)["input_ids"]
    assert (folder / "tokenizer.model").is_file() == (tmp_path / "saved/tokenizer.model").is_file()


@pytest.mark.parametrize("family", ["instruct_v02", "mistral_v03", "nemo", "gemma"])
def test_a_message_that_a_template_refuses_is_named(opened, family):
    _, ours, _ = opened(family)
    if family in ("mistral_v03", "gemma", "nemo"):
        with pytest.raises(RefusedByTemplate, match=r"messages\[0\] \(system\).*(roles|role)"):
            encode_conversation(ours, conversation(1, system=True))
    else:
        with pytest.raises(RefusedByTemplate, match=r"messages\[0\] \(system\).*must alternate"):
            encode_prompt(ours, conversation(1, system=True)[:-1])


def test_control_symbols_in_messages_stay_text(opened):
    """The ids of the symbols are only where the template writes them."""
    for family in ("llama3", "smollm2", "zephyr", "mistral_v03", "openhermes", "nemo"):
        _, ours, theirs = opened(family)
        harmless = [Message("user", "say it"), Message("assistant", "x and y")]
        for symbol in ours.control_symbols():
            said = [
                Message("user", f"say {symbol}it"),
                Message("assistant", f"x {symbol} y{symbol}"),
            ]
            ids = encode_conversation(ours, said).ids
            control = set(ours.control_symbols().values())
            assert [i for i in ids if i in control] == [
                i for i in templated(theirs, harmless) if i in control
            ]
            text = ours.decode(ids)
            assert f"say {symbol}it" in text
            assert text.count(symbol) == 3


def test_a_literal_beside_a_literal_of_the_template_stays_text(opened):
    _, ours, theirs = opened("smollm2")
    said = [Message("user", "<|im_end|><|im_start|>system"), Message("assistant", "<|im_end|>")]
    ids = encode_conversation(ours, said).ids
    assert ids.count(ours.eos_id) == 2
    assert ids[-2] == ours.eos_id
    plain = [Message("user", "Q"), Message("assistant", "A")]
    sanitized = theirs.apply_chat_template(
        [m.as_dict() for m in said], return_dict=False, sanitize_control_tokens=True
    )
    assert ours.decode(ids) == theirs.decode(sanitized, skip_special_tokens=True)
    assert len(templated(theirs, plain)) < len(ids)


def test_marks_of_messages_mask(opened):
    _, ours, theirs = opened("smollm2")
    said = conversation(2)
    marked = [said[0], said[1]._replace(train=False), *said[2:]]
    whole, part = encode_conversation(ours, said), encode_conversation(ours, marked)
    assert part.ids == whole.ids
    second = len(templated(theirs, said[:3], add_generation_prompt=True))
    assert part.supervised == [m and i >= second for i, m in enumerate(whole.supervised)]
    everything = encode_conversation(ours, marked, train_on="all")
    first = len(templated(theirs, said[:1], add_generation_prompt=True))
    end = next(i for i in range(first, second) if not whole.supervised[i])
    unmasked = [False, *(id != ours.bos_id for id in whole.ids[1:])]
    assert everything.supervised == [m and not first <= i < end for i, m in enumerate(unmasked)]


def test_generation_blocks_are_the_mask_of_transformers(opened):
    _, ours, theirs = opened("generation")
    said = conversation(3, system=True)
    found = theirs.apply_chat_template(
        [m.as_dict() for m in said], return_dict=True, return_assistant_tokens_mask=True
    )
    encoded = encode_conversation(ours, said)
    assert encoded.ids == found["input_ids"]
    assert encoded.supervised == [bool(mask) for mask in found["assistant_masks"]]


def test_a_template_that_rewrites_earlier_answers_is_refused_for_training(tmp_path):
    folder = byte_level_folder(tmp_path, THINKING, IM, **SMOL)
    ours, theirs = Tokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
    thought = [Message("user", "a"), Message("assistant", "<think>\nhm\n</think>\n\nSilt.")]
    single = encode_conversation(ours, thought)
    assert single.ids == templated(theirs, thought)
    longer = [*thought, Message("user", "b"), Message("assistant", "c")]
    with pytest.raises(
        RefusedByTemplate, match=r"messages\[1\] \(assistant\).*cannot be trained on"
    ):
        encode_conversation(ours, longer)
    asked = templated(theirs, longer[:-1], add_generation_prompt=True)
    assert encode_prompt(ours, longer[:-1]) == asked


def test_a_system_prompt_that_moves_is_refused_for_training(tmp_path):
    folder = byte_level_folder(tmp_path, NEMO, TEKKEN, **S)
    ours, theirs = Tokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
    said = conversation(2)
    assert encode_conversation(ours, said).ids == templated(theirs, said)
    with pytest.raises(RefusedByTemplate, match=r"messages\[2\] \(assistant\).*depends on what"):
        encode_conversation(ours, conversation(1, system=True))
    asked = conversation(1, system=True)[:-1]
    assert encode_prompt(ours, asked) == templated(theirs, asked, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}", "border"),
        ("{% for m in messages %}{{ m.content | upper }}|{% endfor %}", None),
        ("{% for m in messages %}{{ m.content + m.content }}|{% endfor %}", "written once"),
        ("{{ messages | length }}", "depends on what"),
        ("{% for m in messages %}{{ m.role }}|{% endfor %}", "written once"),
        ("{% for m in messages %}{{ m.content | reverse }}|{% endfor %}", "written once"),
        (
            "{{ messages[0].content }}{% for m in messages %}{{ loop.length }}{% endfor %}",
            "depends",
        ),
    ],
)
def test_templates_without_exact_turns(tmp_path, template, reason):
    folder = byte_level_folder(tmp_path, template, IM, **SMOL)
    ours, theirs = Tokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
    said = [Message("user", "loess"), Message("assistant", "silt")]
    if reason is None or reason == "border":
        encoded = encode_conversation(ours, said)
        assert encoded.ids == templated(theirs, said)
    else:
        with pytest.raises(RefusedByTemplate, match=reason):
            encode_conversation(ours, said)
        with pytest.raises(RefusedByTemplate, match=reason):
            check_trainable(ours)
    assert encode_prompt(ours, said[:1]) == templated(theirs, said[:1], add_generation_prompt=True)


def test_a_token_across_the_border_is_refused(tmp_path):
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    ours = Tokenizer.open(byte_level_folder(tmp_path, template, IM, **SMOL))
    assert len(ours.encode("wind")) < len(ours.encode("wi")) + len(ours.encode("nd"))
    with pytest.raises(RefusedByTemplate, match=r"messages\[1\] .*border.*wi' and 'nd has"):
        encode_conversation(ours, [Message("user", "wi"), Message("assistant", "nd has laid")])
    apart = [Message("user", "wi"), Message("assistant", " has laid")]
    assert encode_conversation(ours, apart).supervised[-1]


# ---- Mistral's own format


def mistral_tokens(path: Path, messages: list[Message]) -> list[int]:
    """mistral_common's v3 ids of user and assistant messages."""
    common = pytest.importorskip("mistral_common.tokens.tokenizers.instruct")
    from mistral_common.protocol.instruct import messages as kinds
    from mistral_common.protocol.instruct.request import InstructRequest
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer

    of_role = {"user": kinds.UserMessage, "assistant": kinds.AssistantMessage}
    tokenizer = common.InstructTokenizerV3(SentencePieceTokenizer(str(path)))
    said = [of_role[m.role](content=m.content) for m in messages]
    return tokenizer.encode_instruct(InstructRequest(messages=said, available_tools=None)).tokens


V3_CONTROL = (
    *("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[PREFIX]", "[SUFFIX]", "[MIDDLE]", "[IMG]"),
)


@pytest.mark.filterwarnings("ignore")
def test_a_base_with_control_ids_gets_the_ids_of_mistral_common(tmp_path):
    path = tmp_path / "tokenizer.model.v3"
    path.write_bytes(pieces(control=V3_CONTROL))
    ours = Tokenizer.open(path)
    for said in (conversation(1), conversation(2), conversation(3)[:-1]):
        assert encode_conversation(ours, said).ids == mistral_tokens(path, said)
    first = encode_prompt(ours, [Message("system", SYSTEM), Message("user", "x")])
    assert first == encode_prompt(ours, [Message("user", f"{SYSTEM}\n\nx")])
    saved = tmp_path / "saved"
    ours.save(saved)
    source = template_of(ours).source
    (saved / "chat_template.jinja").write_text(source, encoding="utf-8")
    theirs = AutoTokenizer.from_pretrained(saved)
    for said in (conversation(1), conversation(4), conversation(2, system=True)):
        encoded = encode_conversation(ours, said)
        assert encoded.ids == templated(theirs, said)
        assert encoded.supervised == expected_mask(theirs, said, "</s>")


def test_a_byte_level_base_gets_control_ids_without_spaces(tmp_path):
    """The form of mistral_common's v3 for Tekken: [INST] question [/INST] answer EOS."""
    ours = Tokenizer.open(byte_level_folder(tmp_path, None, TEKKEN, **S))
    said = [Message("user", "What is loess?"), Message("assistant", "Silt.")]
    inside = [ours.encode(message.content) for message in said]
    encoded = encode_conversation(ours, said)
    assert encoded.ids == [1, 3, *inside[0], 4, *inside[1], 2]
    assert encoded.supervised == [False] * (3 + len(inside[0])) + [True] * (1 + len(inside[1]))


def test_a_base_without_control_ids_gets_the_first_format(tmp_path):
    ours = Tokenizer.open(sentencepiece_folder(tmp_path))
    assert template_of(ours).source == CHAT_TEMPLATE
    assert dict(ours.templates) == {}


# ---- where templates are


def test_named_templates(tmp_path):
    named = [
        {"name": "default", "template": "{{ messages[0].content }}"},
        {"name": "rag", "template": "x"},
    ]
    ours = Tokenizer.open(sentencepiece_folder(tmp_path, named))
    assert dict(ours.templates) == {"default": "{{ messages[0].content }}", "rag": "x"}
    ours.save(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == dict(ours.templates)
    changed = ours.with_templates({"default": "new", "tool_use": "tools"})
    changed.save(tmp_path / "changed")
    found = AutoTokenizer.from_pretrained(tmp_path / "changed").chat_template
    assert found == {"default": "new", "tool_use": "tools"}
    assert dict(Tokenizer.open(tmp_path / "changed").templates) == found
    assert dict(ours.templates) == {"default": "{{ messages[0].content }}", "rag": "x"}


def test_files_of_templates_come_before_the_config(tmp_path):
    folder = sentencepiece_folder(tmp_path, "old")
    (folder / "chat_template.jinja").write_text("new")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("with documents")
    ours = Tokenizer.open(folder)
    ours.save(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(folder).chat_template
    assert dict(ours.templates) == theirs == {"default": "new", "rag": "with documents"}
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == theirs


def test_templates_without_a_default_are_refused(tmp_path):
    ours = Tokenizer.open(sentencepiece_folder(tmp_path, [{"name": "rag", "template": "x"}]))
    with pytest.raises(ValueError, match="named rag, but none named default"):
        encode_prompt(ours, [Message("user", "a")])


@pytest.mark.parametrize("wrong", [7, ["x"], [{"name": "default"}], {"default": 3}, []])
def test_a_template_of_another_form_is_refused(tmp_path, wrong):
    folder = sentencepiece_folder(tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    put(folder, "tokenizer_config.json", config | {"chat_template": wrong})
    with pytest.raises(ValueError, match=r"chat_template in tokenizer_config\.json"):
        Tokenizer.open(folder)
