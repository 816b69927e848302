"""Which texts count as the same one, and on which side of the split a text falls."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data.prepare.held_out import (
    fold,
    fold_hash,
    is_held_out,
    letters_and_digits,
    normalize,
    side_hash,
)

DIFFERENT = [
    # operators, signs and numbers
    ("Is 3 < 5?", "Is 3 != 5?"),
    ("Is 3 <= 5?", "Is 3 >= 5?"),
    ("Is x = 5?", "Is x ≠ 5?"),
    ("7 + 3", "7 * 3"),
    ("7 - 3", "7 + 3"),
    ("7 - 3", "7 3"),
    ("x - 1", "x 1"),
    ("1.5", "15"),
    ("1.5", "1,5"),
    ("1 5", "15"),
    ("10:30", "1030"),
    ("2020-01-02", "20200102"),
    (".5 mm", "5 mm"),
    ("-196", "196"),
    ("It boils at -196 °C", "It boils at 196 °C"),
    ("沸点为-196度", "沸点为196度"),
    ("x = −1", "x = 1"),
    ("5!", "5"),
    ("50 %", "50"),
    ("1/2", "12"),
    ("½", "12"),
    # code and LaTeX
    ("&", "&&"),
    ("a || b", "a | b"),
    ("!a", "a"),
    ("x := 3", "x = 3"),
    ("a -> b", "a > b"),
    ("a[:2]", "a[2]"),
    ('print("a")', "print(a)"),
    ("(a + b) * c", "a + b * c"),
    ("i++", "i"),
    ("C#", "C"),
    ("$x^2$", "$x_2$"),
    (r"\alpha{b}", "alpha b"),
    ("f'(x)", "f(x)"),
    # vowel signs, tone marks and vowel points are letters
    ("कल", "काल"),
    ("มา", "ม้า"),
    ("عَلِمَ", "عُلِمَ"),
    ("סֵפֶר", "סָפַר"),
    # nothing but symbols
    ("😀", "😢"),
    ("🤷‍♀️", "🤷‍♂️"),
    ("?", "!"),
    # case that the text itself contrasts
    ("Fix capitals: berlin\nBerlin", "Fix capitals: Berlin\nberlin"),
    ("Polish it; he is polish", "polish it; he is Polish"),
    ("basalt", "basalts"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_texts_that_mean_something_else_are_not_the_same(one, other):
    assert fold(one) != fold(other)
    assert fold_hash(one) != fold_hash(other)


SAME = [
    ("What is basalt?", "what is BASALT"),
    ("The cat and the dog", "the cat and the dog"),
    ("The cat and the dog", "THE CAT AND THE DOG!"),
    ("Name it!", "name  IT"),
    ("name it", "Name\n\nit ..."),
    ("Is 3<5?", "Is 3 < 5 ?"),
    ("7+3", "7 + 3"),
    ("x-1", "x - 1"),
    ("5 - 3", "5−3"),
    ("1, 2, 3", "1,2,3"),
    ("It is well-known", "it is well known"),
    ("COVID-19", "covid 19"),
    ("“Quoted” text", '"quoted" text'),
    ("It’s so", "It's so"),
    ("basalt — a rock", "basalt, a rock"),
    ("Answer:5", "Answer: 5."),
    ("Is it from 1990?", "Is it from 1990"),
    ("「岩 石」", "岩石"),
    ("玄武岩，是什么？", "玄武岩是什么"),
    ("答案：５", "答案: 5"),
    ("कल क्या है?", "कल क्या है।"),
    ("The Straße, Nr. 12: 岩石!", "the STRASSE nr.12 岩石"),
    ("soft\u00adhyphen", "softhyphen"),
    ("❤️", "❤"),
    ("caf\u00e9", "cafe\u0301"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_copies_that_were_retyped_are_the_same(one, other):
    assert fold(one) == fold(other)
    assert side_hash(normalize(one)) == side_hash(normalize(other))


PIECES = ["a", "B", "ab", "Berlin", "berlin", "straße", "3", "15", "½", "岩", "ก", "ม้", "का", "ß"]
PIECES += [*" \n\u3000.,;:!?-'\"()[]{}<>=+*/&|^_$\\%#。、“”…—−", "😀", "❤️", "\u00ad", "\u0345", "ΐ"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@given(TEXTS | st.text(max_size=12), TEXTS)
@example("", "")
def test_the_same_text_is_on_one_side(one, other):
    """Also of pairs that this happens to make the same, which it does often enough to count."""
    copies = [one, f" {one}\n", one.replace(" ", "\n \u3000"), unicodedata.normalize("NFD", one)]
    copies += [unicodedata.normalize("NFKC", one), one.replace("-", "−"), one + "\u200b", other]
    by_fold = {}
    for copy in copies:
        by_fold.setdefault(fold(copy), set()).add(side_hash(normalize(copy)))
    assert all(len(sides) == 1 for sides in by_fold.values())


@given(TEXTS)
def test_spaces_more_or_fewer_do_not_make_another_text(text):
    wide = " ".join(text.split())
    for copy in (wide, wide.replace(" ", "\n\n  "), f"\t{wide} "):
        assert fold(copy) == fold(text)


WORDS = st.lists(st.sampled_from(["basalt", "岩石", "3", "काल", "x", "Loess"]), min_size=1)


@given(WORDS, st.data())
def test_however_a_text_is_retyped_it_stays_on_its_side(words, data):
    """Case, spaces and punctuation anywhere between the words do not move a text."""
    marks = st.sampled_from(
        [" ", "  ", "\n", ", ", ". ", "; ", " - ", " — ", "！", "、", " (", ") "]
    )
    text = "".join(word + data.draw(marks) for word in words)
    assert side_hash(normalize(text)) == side_hash(normalize(" ".join(words)))
    for copy in (text.upper(), text.title(), text.casefold(), f"“{text}”"):
        assert is_held_out(copy, 0.5) == is_held_out(text, 0.5)


@given(st.text())
def test_a_fold_can_be_made_of_every_text(text):
    assert letters_and_digits(normalize(fold(text))) or not letters_and_digits(normalize(text))


def test_texts_of_symbols_alone_do_not_all_fall_on_one_side():
    faces = [chr(code) for code in range(0x1F600, 0x1F640)]
    held_out = [face for face in faces if is_held_out(face, 0.5)]
    assert 16 < len(held_out) < 48
    assert all(is_held_out(f" {face} .", 0.5) for face in held_out)
