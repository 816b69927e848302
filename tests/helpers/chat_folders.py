"""Small tokenizer folders with the chat templates of model families, written by transformers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import ModelProto

from tokenizer.hf_export import CONTROL
from tokenizer.tokenizer import Tokenizer
from tokenizer.train import train_bpe

TEXTS = [
    "What is loess? Loess is silt that the wind has laid down.",
    "Why do rivers bend? A river bends because its outer bank wears away faster.",
    "You are a geologist who answers briefly. The user asks, and the assistant answers.",
    "地壳由岩石组成，地幔在地壳之下。黄土是风积的粉砂。",
    "system user assistant [INST] /INST SYS USER: ASSISTANT: <|user|> <|assistant|> <|system|>",
    "    Indented lines, tabs\tand   runs of spaces; 2018, 12345 and 7.\n\n",
]

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>'"
    " + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n'"
    " }}{% endif %}" + CHATML
)
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
INST_V1 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token + ' ' }}{% endif %}{% endfor %}"
)
INST_V3 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + '[/INST]' }}{% elif m['role'] == 'assistant' %}"
    "{{ ' ' + m['content'] + eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set preface = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set rest = messages %}{% set preface = '' %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + "
    "((preface if loop.first else '') + m['content']).strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
VICUNA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + '\n' }}"
    "{% elif m['role'] == 'user' %}{{ 'USER: ' + m['content'] }}"
    "{% else %}{{ ' ASSISTANT: ' + m['content'] + eos_token + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<|im_start|>' + role + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
NEMO = (  # the system prompt stands before the last question, and nowhere after its answer
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{{ bos_token }}"
    "{% for m in rest %}{% if m['role'] == 'user' %}{% if loop.last and system is defined %}"
    "{{ '[INST]' + system + '\n\n' + m['content'] + '[/INST]' }}{% else %}"
    "{{ '[INST]' + m['content'] + '[/INST]' }}{% endif %}{% else %}{{ m['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
THINKING = (  # earlier answers lose what stands before </think>, the last one keeps it
    "{%- for m in messages %}{%- set content = m.content %}"
    "{%- if m.role == 'assistant' and not loop.last and '</think>' in content %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
GENERATION = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ m['content'] + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PLAIN = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}


def put(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def pieces(*, control: tuple[str, ...] = ()) -> bytes:
    """A sentencepiece model as Mistral's, perhaps with more control symbols."""
    model = ModelProto()
    model.ParseFromString(train_bpe(TEXTS, vocab_size=420))
    for name in control:
        model.pieces.add(piece=name, type=CONTROL, score=0.0)
    return model.SerializeToString()


def sentencepiece_folder(
    folder: Path,
    template: str | list | None = None,
    *,
    control: tuple[str, ...] = (),
    special: tuple[str, ...] = (),
    add: tuple[Any, ...] = (),
    keep_model: bool = True,
    **config: Any,
) -> Path:
    """tokenizer.model beside the tokenizer.json that transformers saves with tokens added."""
    from transformers import PreTrainedTokenizerFast

    plain = folder / "plain"
    plain.mkdir(parents=True)
    (plain / "tokenizer.model").write_bytes(pieces(control=control))
    Tokenizer.open(plain / "tokenizer.model").save(plain)
    fast = PreTrainedTokenizerFast.from_pretrained(plain)
    if special:
        fast.add_special_tokens({"additional_special_tokens": list(special)})
    if add:
        fast.add_tokens(list(add))
    made = folder / "made"
    fast.save_pretrained(made)
    if keep_model:
        (made / "tokenizer.model").write_bytes((plain / "tokenizer.model").read_bytes())
    given = json.loads((made / "tokenizer_config.json").read_text())
    named = {} if template is None else {"chat_template": template}
    put(made, "tokenizer_config.json", given | named | config)
    return made


def byte_level_folder(
    folder: Path,
    template: str | None,
    special: tuple[str, ...],
    *,
    first: bool = True,
    **config: Any,
) -> Path:
    """Only a tokenizer.json with a byte-level BPE; special tokens first in it, or last."""
    from tokenizers import Regex, decoders, models, trainers
    from tokenizers import Tokenizer as Backend
    from tokenizers import pre_tokenizers as pre

    backend = Backend(models.BPE())
    if first:
        backend.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    else:  # Llama-3's, where line feeds at the end of a header are one token whatever follows
        level = pre.ByteLevel(add_prefix_space=False, use_regex=False)
        split = pre.Split(Regex(LLAMA3_PATTERN), "isolated")
        backend.pre_tokenizer = pre.Sequence([split, level])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special) if first else [],
        initial_alphabet=sorted(pre.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_special_tokens(list(special))
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    put(folder, "tokenizer_config.json", PLAIN | config)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


TEKKEN = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
S = {"bos_token": "<s>", "eos_token": "</s>"}
IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
HEADERS = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    "<|eot_id|>",
)
SMOL = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
BEGIN_END = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}

FAMILIES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "instruct_v02": (lambda f: sentencepiece_folder(f, INST_V1), "</s>"),
    "llama2": (lambda f: sentencepiece_folder(f, LLAMA2), "</s>"),
    "zephyr": (lambda f: sentencepiece_folder(f, ZEPHYR, pad_token="</s>"), "</s>"),
    "vicuna": (lambda f: sentencepiece_folder(f, VICUNA), "</s>"),
    "openhermes": (
        lambda f: sentencepiece_folder(
            f, CHATML, special=("<|im_end|>",), add=("<|im_start|>",), eos_token="<|im_end|>"
        ),
        "<|im_end|>",
    ),
    "openhermes_json_only": (
        lambda f: sentencepiece_folder(
            f, CHATML, special=IM[1:], keep_model=False, eos_token="<|im_end|>"
        ),
        "<|im_end|>",
    ),
    "mistral_v03": (
        lambda f: sentencepiece_folder(f, INST_V3, control=("[INST]", "[/INST]")),
        "</s>",
    ),
    "nemo": (lambda f: byte_level_folder(f, INST_V3, TEKKEN, **S), "</s>"),
    "smollm2": (lambda f: byte_level_folder(f, CHATML, IM, **SMOL), "<|im_end|>"),
    "default_system": (lambda f: byte_level_folder(f, DEFAULT_SYSTEM, IM, **SMOL), "<|im_end|>"),
    "generation": (lambda f: byte_level_folder(f, GENERATION, IM, **SMOL), "<|im_end|>"),
    "gemma": (lambda f: byte_level_folder(f, GEMMA, IM, **SMOL), "<|im_end|>"),
    "llama3": (
        lambda f: byte_level_folder(f, LLAMA3, HEADERS, first=False, **BEGIN_END),
        "<|eot_id|>",
    ),
}
"""Family -> what writes its folder, and the token that ends an answer."""
