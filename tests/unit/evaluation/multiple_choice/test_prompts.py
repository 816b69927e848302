"""What a model reads of a question: the words, the solved questions before it, and the ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.benchmarks.items import Item, Task
from evaluation.multiple_choice.config import AskConfig, EvaluateConfig
from evaluation.multiple_choice.encode import check_lengths, encode_prompts, newline_is_boundary
from evaluation.multiple_choice.prompts import Prompt, write_prompts
from tests.helpers.draws import examples
from tests.helpers.toy import toy_config
from tokenizer.expansion.candidates import read_model
from tokenizer.tokenizer import Tokenizer
from tokenizer.train import train_bpe

ROCKS = ("basalt", "granite", "loess", "marble", "slate", "shale", "gneiss", "chert")
STONES = ("玄武岩", "花岗岩", "黄土", "大理石", "板岩", "页岩", "片麻岩", "燧石")


def item(n, language="en", **changes):
    """Question n of its subject, with the right option at place n mod 4."""
    names, word = (ROCKS, "Which rock is number") if language == "en" else (STONES, "哪种岩石是第")
    fields = {
        "id": f"{language}/{n}",
        "subject": ("rocks", "maps")[n // 4 % 2],
        "question": f"{word} {n}?" if language == "en" else f"{word}{n}号？",
        "options": tuple(names[(n + k) % 8] for k in range(4)),
        "answer": n % 4,
        "place": f"questions.csv, line {n + 1}",
        "tags": {"parity": str(n % 2)},
    }
    return Item(**(fields | changes))


def make_task(count=12, language="en", solved=5, **changes):
    """A task of two subjects, four questions of each in turn."""
    demonstrations = {
        subject: tuple(
            item(100 + 8 * k + 4 * n, language, id=f"{language}/{subject}/{k}", subject=subject)
            for k in range(solved)
        )
        for n, subject in enumerate(("rocks", "maps"))
    }
    fields = {
        "name": f"toy_{language}",
        "variant": "released",
        "language": language,
        "items": tuple(item(n, language) for n in range(count)),
        "demonstrations": demonstrations,
        "categories": {"rocks": "Geology", "maps": "Geography"},
        "titles": {"rocks": "rocks", "maps": "maps"}
        if language == "en"
        else {"rocks": "岩石", "maps": "地图"},
        "files": {"questions.csv": "0" * 64},
    }
    return Task(**(fields | changes))


def write_tokenizer(folder, *more_pieces):
    """A small sentencepiece model that knows the questions' words, and pieces added behind."""
    path = folder / "tokenizer.model"
    texts = [p.context for language in ("en", "zh") for p in prompts_of(language)]
    texts += ["Answer: E\nE. slate", "答案：E"]
    path.write_bytes(train_bpe(texts * 3, vocab_size=640))
    if more_pieces:
        model = read_model(path)
        for n, piece in enumerate(more_pieces):
            model.pieces.add(piece=piece, score=-1000.0 - n)
        model.trainer_spec.vocab_size = len(model.pieces)
        path.write_bytes(model.SerializeToString())
    return Tokenizer.open(path)


def prompts_of(language, **options):
    return write_prompts(make_task(language=language), AskConfig(**({"shots": 2} | options)))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def whole_ids(tokenizer, text):
    return (tokenizer.bos_id, *tokenizer.encode(text))


def test_the_customary_english_prompt():
    prompt = write_prompts(make_task(), AskConfig(shots=1))[1]
    assert prompt.context == (
        "The following are multiple choice questions (with answers) about  rocks.\n\n"
        "Which rock is number 100?\nA. slate\nB. shale\nC. gneiss\nD. chert\nAnswer: A\n\n"
        "Which rock is number 1?\nA. granite\nB. loess\nC. marble\nD. slate\nAnswer:"
    )
    assert prompt.endings == (" A", " B", " C", " D")
    assert prompt.answer == 1


def test_the_customary_chinese_prompt():
    prompt = write_prompts(make_task(language="zh"), AskConfig(shots=1))[1]
    assert prompt.context == (
        "以下是中国关于岩石考试的单项选择题，请选出其中的正确答案。\n\n"
        "哪种岩石是第100号？\nA. 板岩\nB. 页岩\nC. 片麻岩\nD. 燧石\n答案：A\n\n"
        "哪种岩石是第1号？\nA. 花岗岩\nB. 黄土\nC. 大理石\nD. 板岩\n答案："
    )
    assert prompt.endings == ("A", "B", "C", "D")


def test_words_in_another_language_than_the_questions():
    prompt = write_prompts(make_task(), AskConfig(shots=0, prompt_language="zh"))[0]
    assert prompt.context.startswith("以下是中国关于rocks考试")
    assert prompt.context.endswith("D. marble\n答案：")
    assert prompt.endings[0] == "A"


def test_as_many_letters_as_options():
    one = item(0, options=("a", "b", "c", "d", "e"), answer=4)
    prompt = write_prompts(make_task(items=(one,)), AskConfig(shots=0))[0]
    assert prompt.choices == tuple("ABCDE")
    assert prompt.context.endswith("\nE. e\nAnswer:")


def test_no_shots_leave_the_headline():
    prompt = write_prompts(make_task(), AskConfig(shots=0))[0]
    assert prompt.shared.endswith("about  rocks.\n\n")
    assert prompt.shared.count("\n") == 2


@pytest.mark.parametrize("scoring", ["letters", "cloze"])
def test_solved_questions_are_shared_by_a_subject(scoring):
    for seed in (None, 3):
        config = AskConfig(shots=3, demonstration_seed=seed, scoring=scoring)
        prompts = write_prompts(make_task(24), config)
        shared = {p.shared for p, i in zip(prompts, make_task(24).items, strict=True)}
        assert len(shared) == 2
        assert all(p.shared.count("number") == 3 for p in prompts)


def test_drawn_solved_questions():
    def shared(seed, shots=3):
        return write_prompts(make_task(), AskConfig(shots=shots, demonstration_seed=seed))[0].shared

    assert shared(1) == shared(1)
    assert len({shared(seed) for seed in range(6)}) > 3
    first = write_prompts(make_task(), AskConfig(shots=5))[0].shared
    # All five in another order: nothing is drawn twice.
    assert sorted(shared(1, 5).split("\n\n")) == sorted(first.split("\n\n"))


def test_broken_questions_are_neither_asked_nor_shown():
    broken = {"tags": {"broken": "no text in B"}}
    task = make_task(items=(item(0, **broken), item(1)))
    task.demonstrations["rocks"] = (item(50, **broken), item(51), item(52))
    prompts = write_prompts(task, AskConfig(shots=2))
    assert prompts[0] is None
    assert "number 50" not in prompts[1].context
    assert "number 51" in prompts[1].context
    assert "number 52" in prompts[1].context
    with pytest.raises(ValueError, match="shots=3: toy_en has 2 solved questions of rocks"):
        write_prompts(task, AskConfig(shots=3))


def test_shots_of_one_task():
    config = AskConfig(shots=5, shots_per_task={"geobench": 0, "geobench_npee": 2})
    names = ("mmlu", "geobench_npee", "geobench_aptest")
    assert [config.shots_for(name) for name in names] == [5, 2, 0]


def test_a_cloze_shows_no_options():
    one = item(0, cloze="Rock number 0 is ", distractors=("sand", "clay"))
    task = make_task(items=(one, item(1)))
    first, second = write_prompts(task, AskConfig(shots=1, scoring="cloze"))
    assert first.shared == "Which rock is number 100? slate\n\n"
    assert (first.body, first.blank) == ("Rock number 0 is", " ")
    assert (first.choices, first.answer) == (("basalt", "sand", "clay"), 0)
    assert second.body == "Which rock is number 1?"
    assert (second.choices, second.answer) == (item(1).options, 1)
    (chinese,) = write_prompts(
        make_task(language="zh", items=(item(0, "zh"),)), AskConfig(shots=0, scoring="cloze")
    )
    assert chinese.shared == ""
    assert chinese.endings == item(0, "zh").options


def test_a_cloze_needs_options():
    task = make_task(items=(item(0, options=("basalt", " ", "loess", "marble")),))
    with pytest.raises(ValueError, match=r"csv, line 1: option B is empty.*scoring=letters"):
        write_prompts(task, AskConfig(shots=0, scoring="cloze"))
    write_prompts(task, AskConfig(shots=0))


@pytest.mark.parametrize("shots", [0, 2])
def test_options_without_a_question_are_compared_alone(tokenizer, shots):
    task = make_task(items=(item(0), item(1, question="")))
    prompts = write_prompts(task, AskConfig(shots=shots, scoring="cloze"))
    encoded = encode_prompts(prompts, tokenizer)
    assert prompts[1].endings == item(1).options
    request = encoded[1].request
    assert request.body
    for option, ending in zip(item(1).options, request.endings, strict=True):
        ids = (*request.prefix, *request.body, *ending)
        assert ids == whole_ids(tokenizer, prompts[1].shared + option)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("scoring", ["letters", "perplexity", "cloze"])
@pytest.mark.parametrize("shots", [0, 5])
def test_ids_are_those_of_the_whole_text(tokenizer, language, scoring, shots):
    prompts = prompts_of(language, scoring=scoring, shots=shots)
    encoded = encode_prompts(prompts, tokenizer)
    for prompt, one in zip(prompts, encoded, strict=True):
        request = one.request
        for text, ending in zip(prompt.endings, request.endings, strict=True):
            ids = whole_ids(tokenizer, prompt.context + text)
            assert (*request.prefix, *request.body, *ending) == ids
            # What is scored begins where the answer does.
            assert one.boundary_shift or tokenizer.decode(ending) in (text, text.lstrip())
    prefixes = {one.request.prefix for one in encoded}
    if scoring != "cloze" or shots:
        assert len(prefixes) == 2, "one per subject"
        assert all(len(one.request.prefix) > len(one.request.body) for one in encoded) or not shots
    else:
        assert prefixes == {(tokenizer.bos_id,)}


def test_a_letter_is_one_id_where_the_tokenizer_has_it(tokenizer):
    for language, piece in (("en", "▁A"), ("zh", "A")):
        one = encode_prompts(prompts_of(language), tokenizer)[0]
        assert [len(ending) for ending in one.request.endings] == [1, 1, 1, 1]
        assert one.boundary_shift == 0
        assert tokenizer.piece(one.request.endings[0][0]) == piece


@pytest.mark.parametrize("piece", ["：A", "答案：A"])
def test_a_piece_that_swallows_the_letter_is_found(tmp_path, tokenizer, piece):
    """A grown vocabulary may join the colon and A, and then there is no id of the letter."""
    between = ["：A"] if piece == "答案：A" else []
    grown = write_tokenizer(tmp_path, *between, piece)
    prompts = prompts_of("zh", shots=0)
    assert grown.piece(grown.encode(prompts[0].context + "A")[-1]) == piece
    plain, found = encode_prompts(prompts, tokenizer), encode_prompts(prompts, grown)
    for prompt, before, now in zip(prompts, plain, found, strict=True):
        assert (before.boundary_shift, now.boundary_shift > 0) == (0, True)
        request = now.request
        assert len(set(request.endings)) == 4
        for text, ending in zip(prompt.endings, request.endings, strict=True):
            spelled = (*request.prefix, *request.body, *ending)
            assert spelled == whole_ids(grown, prompt.context + text)
        assert [grown.piece(i) for i in request.endings[0]] == [piece]
        assert grown.decode(request.endings[1]) == piece[:-1] + "B"


def test_letters_that_are_no_ids_are_refused(tmp_path, tokenizer):
    path = tmp_path / "tokenizer.model"
    tokenizer.save(tmp_path)
    model = read_model(path)
    for piece in model.pieces:
        if piece.piece in ("▁A", "A", "▁B", "B", f"<0x{ord('A'):02X}>", f"<0x{ord('B'):02X}>"):
            piece.piece = f"gone{piece.piece}"
            piece.type = 5  # unused
    model.trainer_spec.byte_fallback = False
    for piece in model.pieces:
        if piece.type == 6:
            piece.type = 5
    path.write_bytes(model.SerializeToString())
    crippled = Tokenizer.open(path)
    with pytest.raises(ValueError, match=r"line 1: two of the letters A, B"):
        encode_prompts(prompts_of("en"), crippled)


@pytest.mark.parametrize("options", [("A", "A"), ("B", "C", "B", "A"), ("D", "D", "D", "D")])
def test_equal_options_of_a_cloze_are_spelled_alike(tokenizer, options):
    """Also where they are letters ("Which mineral group is it?"): no letter is lost."""
    tasks = make_task(items=(item(0, options=options, answer=1),))
    (prompt,) = write_prompts(tasks, AskConfig(shots=0, scoring="cloze"))
    assert prompt.choices == options
    ((request, _),) = [
        (one.request, one.boundary_shift) for one in encode_prompts([prompt], tokenizer)
    ]
    assert len(set(request.endings)) == len(set(options))
    for option, ending in zip(options, request.endings, strict=True):
        ids = (*request.prefix, *request.body, *ending)
        assert ids == whole_ids(tokenizer, f"{prompt.context} {option}")


def test_prompts_that_are_too_long_are_refused(tokenizer):
    prompts = prompts_of("en", shots=5)
    encoded = encode_prompts(prompts, tokenizer)
    longest = max(len(e.request.prefix) + len(e.request.body) + 1 for e in encoded)
    fits = toy_config(vocab_size=700, sliding_window=None, max_position_embeddings=longest)
    check_lengths(prompts, [e.request for e in encoded], fits)
    short = toy_config(vocab_size=700, sliding_window=None, max_position_embeddings=longest - 1)
    with pytest.raises(ValueError, match=rf"questions.csv, line .*{longest:,} tokens.*fewer shots"):
        check_lengths(prompts, [e.request for e in encoded], short)
    check_lengths(
        prompts, [e.request for e in encoded], toy_config(vocab_size=700, max_position_embeddings=2)
    )


def test_lines_are_apart_only_where_no_piece_has_a_break(tmp_path, tokenizer):
    assert newline_is_boundary(tokenizer)
    assert not newline_is_boundary(write_tokenizer(tmp_path, "\n\n"))


texts = st.text(alphabet="Answer:. \n答案：ABC岩石 ", min_size=1, max_size=12)


questions = st.tuples(texts, st.lists(texts, min_size=2, max_size=4))


@examples(60)
@given(texts | texts.map("{}\n".format), st.lists(questions, max_size=4))
def test_no_id_is_lost_whatever_the_texts(shared, questions):
    """Also where the shared text ends a line, behind which questions are spelled by themselves."""
    prompts = [
        Prompt(shared, body + "?", "", tuple(choices), 0, "here") for body, choices in questions
    ]
    for prompt, one in zip(prompts, encode_prompts(prompts, SMALL), strict=True):
        assert one.request.body
        for text, ending in zip(prompt.endings, one.request.endings, strict=True):
            assert ending
            spelled = (*one.request.prefix, *one.request.body, *ending)
            assert spelled == whole_ids(SMALL, prompt.context + text)


@pytest.fixture(autouse=True, scope="module")
def _small(tokenizer):
    global SMALL
    SMALL = tokenizer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": -1}, "shots=-1: must be at least 0"),
        ({"shots_per_task": {"mmlu": -2}}, "shots_per_task.mmlu=-2: must be at least 0"),
        (
            {"shots_per_task": {"mlu": 0}},
            "shots_per_task: tasks: 'mlu' does not exist; did you mean mmlu",
        ),
        ({"shots_per_task": {"ceval": 0}}, "shots_per_task.ceval: not one of tasks=mmlu"),
        ({"scoring": "letter"}, "scoring='letter': one of letters, perplexity, cloze"),
        ({"prompt_language": "de"}, "prompt_language='de': one of auto, en, zh"),
        ({"tasks": []}, "tasks: name at least one"),
        ({"tasks": ["mmul"]}, "'mmul' does not exist; did you mean mmlu"),
        ({"variant": "clean"}, "variant='clean': one of released, cleaned, both"),
        ({"dtype": "float16"}, "dtype='float16': one of auto"),
        ({"batch_tokens": 0}, "batch_tokens=0: must be at least 1"),
        ({"save_every": 0}, "save_every=0: must be at least 1"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(**({"folder": "m", "tasks": ["mmlu"], "out": "o"} | options))
