"""HF tokenizer files of a sentencepiece BPE model that give the same ids as the model.

`fast_files(model)` gives tokenizer.json, tokenizer_config.json and special_tokens_map.json for
`transformers.PreTrainedTokenizerFast`. They agree with sentencepiece on every text that is free of
control and unknown literals, and on every text under `split_special_tokens=True`; so does decoding
what was encoded (but where a text starts with U+2581 and extra whitespace is removed, and where
byte ids are not complete UTF-8). What `tokenizers` cannot express is refused by name.

Why one merge per piece: sentencepiece joins the neighbours whose joint piece scores highest, the
leftmost of equals; HF ranks pairs. What happens inside a span before a merge crosses its borders
depends on that span alone. Hence a piece only ever arises from the pair that it arises from when it
is encoded by itself, and with those pairs in order of score HF takes the same steps.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import groupby, pairwise

from sentencepiece.sentencepiece_model_pb2 import (
    ModelProto,  # pyright: ignore[reportAttributeAccessIssue] protobuf makes it at run time
)

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BPE = 2
SPACE = "\u2581"

Merge = tuple[str, str]


def fast_files(model: ModelProto) -> dict[str, dict]:
    """File name -> JSON value of the HF files; ValueError if HF could not agree with the model."""
    _check_expressible(model)
    control = [p.piece for p in model.pieces if p.type in (UNKNOWN, CONTROL)]
    vocab = {piece.piece: id for id, piece in enumerate(model.pieces)}
    names = {"unk_token": next(p.piece for p in model.pieces if p.type == UNKNOWN)}
    for name in ("bos", "eos", "pad"):
        piece = getattr(model.trainer_spec, f"{name}_piece")
        if piece in control:
            names[f"{name}_token"] = piece
    config = {
        # Named after a model, a class would rebuild the normaliser its own way.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,  # for converters; the post-processor is what adds it
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),  # transformers' "no limit": the model knows its own
        **names,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(piece, vocab[piece]) for piece in control],
        "normalizer": _normalizer(model),
        "pre_tokenizer": _pre_tokenizer(model),
        "post_processor": _bos_template(names["bos_token"], vocab[names["bos_token"]]),
        "decoder": _decoder(model),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": names["unk_token"],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": model.trainer_spec.byte_fallback,
            "ignore_merges": bool(_isolated_symbols(model)),
            "vocab": vocab,
            "merges": _merges(model),
        },
    }
    return {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": config,
        "special_tokens_map.json": names,
    }


def check_expressible(model: ModelProto) -> None:
    """ValueError if `fast_files` could not agree with the model; fast where no scores tie."""
    _check_expressible(model)
    runs = {p.piece for p in model.pieces if len(set(p.piece)) == 1}
    mergeable = [p for p in model.pieces if p.type in (NORMAL, UNUSED) and p.piece not in runs]
    if len({p.score for p in mergeable}) < len(mergeable):
        _merges(model)


def text_steps(model: ModelProto) -> dict[str, dict | None]:
    """`normalizer` and `pre_tokenizer` of the tokenizer.json that `fast_files` gives."""
    return {"normalizer": _normalizer(model), "pre_tokenizer": _pre_tokenizer(model)}


def _check_expressible(model: ModelProto) -> None:
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    problems = {
        "model_type is not BPE": trainer.model_type != BPE,
        # `Precompiled` of `tokenizers` works on graphemes and drops marks: U+00B5 U+0350 loses one.
        "the normaliser has a character map": bool(normalizer.precompiled_charsmap),
        "the denormaliser has a character map": bool(model.denormalizer_spec.precompiled_charsmap),
        "escape_whitespaces is off": not normalizer.escape_whitespaces,
        "treat_whitespace_as_suffix is on": trainer.treat_whitespace_as_suffix,
        "a control symbol is a single character": any(
            len(p.piece) == 1 for p in model.pieces if p.type in (UNKNOWN, CONTROL)
        ),
        "a user-defined symbol holds a space": any(
            " " in p.piece for p in model.pieces if p.type == USER_DEFINED
        ),
    }
    for problem, present in problems.items():
        if present:
            raise ValueError(f"no tokenizer.json can follow this sentencepiece model: {problem}")
    twice = [piece for piece, n in Counter(p.piece for p in model.pieces).items() if n > 1]
    if twice:
        raise ValueError(f"piece {twice[0]!r} is in the model twice; tokenizer.json needs one")


def _merges(model: ModelProto) -> list[Merge]:
    """The only pair that each piece can arise from, best score first."""
    scores = _mergeable(model)
    unused = {p.piece for p in model.pieces if p.type == UNUSED}
    merges: dict[str, Merge] = {}
    for piece in scores:
        symbols, merge = _join(piece, scores)
        if merge is None or len(symbols) > 1:
            continue
        missing = [part for part in merge if part not in scores]
        if missing:
            raise ValueError(
                f"piece {piece!r} is joined from {missing[0]!r}, which is not a piece; "
                f"add {missing[0]!r}, or remove {piece!r}"
            )
        if piece in unused:
            raise ValueError(
                f"piece {piece!r} is unused but sentencepiece merges through it; "
                "make it normal, or remove it"
            )
        merges[piece] = merge
    # Among equals the longest run first: it grows from the left, as sentencepiece does it.
    order = sorted(merges, key=lambda piece: (-scores[piece], -len(piece)))
    _check_ties(merges, [list(group) for _, group in groupby(order, key=scores.__getitem__)])
    return [merges[piece] for piece in order]


def _check_ties(merges: dict[str, Merge], groups: Iterable[list[str]]) -> None:
    """Pieces of one score must never compete: sentencepiece picks the leftmost, HF by rank.

    They cannot if no two of them share a symbol (the right of one is the left of another) and none
    is part of a piece that scores as high. Runs of one character are in order as they are.
    """
    runs = Counter(piece[0] for piece in merges if len(set(piece)) == 1)
    parts: dict[str, str] = {}
    for group in groups:
        parts |= {part: piece for piece in group for part in merges[piece]}
        if len(group) == 1 or (len(set("".join(group))) == 1 and runs[group[0][0]] == len(group)):
            continue
        by_left = defaultdict(list)
        for piece in group:
            by_left[merges[piece][0]].append(piece)
        for piece in group:
            rivals = [rival for rival in by_left[merges[piece][1]] if rival != piece]
            if piece in parts:
                rivals.append(parts[piece])
            if rivals:
                raise ValueError(
                    f"piece {piece!r} ties in score and competes with {rivals[0]!r}, which no "
                    "tokenizer.json can reproduce; name a folder with tokenizer.model and the "
                    "tokenizer.json published with it (which is kept unchanged), or give every "
                    "piece a different score, which changes ids"
                )


def _mergeable(model: ModelProto) -> dict[str, float]:
    """Pieces that merging may build: a user-defined symbol is cut out before anything merges."""
    symbols = [p.piece for p in model.pieces if p.type == USER_DEFINED]
    frozen = re.compile(_alternatives(symbols)) if symbols else None
    return {
        p.piece: p.score
        for p in model.pieces
        if p.type in (NORMAL, UNUSED) and not (frozen and frozen.search(p.piece))
    }


def _join(text: str, scores: dict[str, float]) -> tuple[list[str], Merge | None]:
    """sentencepiece's loop on a short string: the symbols it ends with, the last pair it merged."""
    symbols, last = list(text), None
    while True:
        pairs = [(a + b, -i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in scores]
        if not pairs:
            return symbols, last
        at = -max(pairs, key=lambda pair: (scores[pair[0]], pair[1]))[1]
        last = (symbols[at], symbols[at + 1])
        symbols[at : at + 2] = ["".join(last)]


def _isolated_symbols(model: ModelProto) -> list[str]:
    """User-defined symbols that must be cut out; one character is a symbol from the start."""
    return [p.piece for p in model.pieces if p.type == USER_DEFINED and len(p.piece) > 1]


def _pre_tokenizer(model: ModelProto) -> dict | None:
    """Cut out user-defined symbols; `ignore_merges` then looks them up whole.

    As added tokens they would lose the dummy prefix before them, or gain one behind them. But
    `ignore_merges` also finds what merging never gives (`</s>`, `<0x0A>`) where it is all the
    text between two symbols: such a text is cut once more, between its tokens.
    """
    isolated = _isolated_symbols(model)
    if not isolated:
        return None
    scores = _mergeable(model)
    symbols = re.compile(_alternatives(isolated))
    unmerged: dict[str, list[str]] = {}
    for piece in (p.piece for p in model.pieces):
        tokens, _ = _join(piece, scores)
        if len(tokens) > 1 and not symbols.search(piece):
            unmerged[piece] = tokens
    cuts = []
    for piece, tokens in unmerged.items():
        for at, (left, right) in enumerate(pairwise(tokens), start=1):
            head, tail = "".join(tokens[:at]), "".join(tokens[at:])
            fused = not model.trainer_spec.byte_fallback and not {left, right} & scores.keys()
            if not (head in unmerged or tail in unmerged or fused):
                cuts.append(f"{re.escape(head)}(?={re.escape(tail)}\\z)")
                break
        else:
            raise ValueError(
                f"no tokenizer.json can keep {piece!r} plain next to a user-defined symbol"
            )
    patterns = [_alternatives(isolated), f"\\A(?:{'|'.join(cuts)})"]
    return _sequence("pretokenizers", [_split(pattern) for pattern in patterns])


def _normalizer(model: ModelProto) -> dict:
    spec = model.normalizer_spec
    steps = []
    if spec.remove_extra_whitespaces:
        steps += [_replace({"Regex": "\\A +"}, ""), _replace({"Regex": " +"}, " ")]
    if spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append(_replace({"String": " "}, SPACE))
    if spec.remove_extra_whitespaces:
        steps.append(_replace({"Regex": f"{SPACE}+\\z"}, ""))
    return _sequence("normalizers", steps)


def _decoder(model: ModelProto) -> dict:
    spec = model.normalizer_spec
    steps = [_replace({"String": SPACE}, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    if spec.add_dummy_prefix or spec.remove_extra_whitespaces:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return _sequence("decoders", steps)


def _bos_template(bos: str, bos_id: int) -> dict:
    """BOS before each text, no EOS: Mistral's default."""
    first, second = (
        [
            {"SpecialToken": {"id": bos, "type_id": type_id}},
            {"Sequence": {"id": sequence, "type_id": type_id}},
        ]
        for type_id, sequence in enumerate("AB")
    )
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": first + second,
        "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
    }


def _added_token(piece: str, id: int) -> dict:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": piece, **flags, "special": True}


def _replace(pattern: dict[str, str], content: str) -> dict:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _split(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _sequence(key: str, steps: list[dict]) -> dict:
    return {"type": "Sequence", key: steps}


def _alternatives(pieces: Iterable[str]) -> str:
    """A pattern that finds the longest piece at the first place where any begins."""
    return "|".join(re.escape(piece) for piece in sorted(pieces, key=len, reverse=True))
