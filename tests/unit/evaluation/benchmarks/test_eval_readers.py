"""Benchmarks are read from the layouts they were released in, and counted as their files count."""

import hashlib
import json
import zipfile

import pytest

from data.sample.knowledge import facts
from evaluation.benchmarks.registry import BENCHMARKS, GROUPS, expand_names, open_task
from inference.generation.question_files import read_open_questions

EXAM_NAMES = ("mmlu", "ceval", "cmmlu")
MAPPING = {
    "law": {"name": "国际法", "category": "Humanities"},
    "stars": {"name": "天文", "category": "STEM"},
}


def table(rows):
    """Rows as the releases write them: quotes only where a cell needs them."""

    def cell(text):
        return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text

    return "".join(",".join(map(cell, row)) + "\n" for row in rows)


def exam_tables(name):
    """The tables of a toy release: two subjects, a question each, one demonstration."""
    scored = "val" if name == "ceval" else "test"
    suffix = {"mmlu": "_{}", "ceval": "_{}", "cmmlu": ""}[name]
    header = {
        "mmlu": [],
        "ceval": [["id", "question", "A", "B", "C", "D", "answer"]],
        "cmmlu": [["", "Question", "A", "B", "C", "D", "Answer"]],
    }[name]
    tables = {}
    for subject in MAPPING:
        for split in ("dev", scored):
            row = [f"{subject}, {split}\n?", "one", "two ", 'a "third"', "four", "D"]
            rows = [row if name == "mmlu" else ["0", *row]]
            if name == "ceval" and split == "dev":
                rows = [[*header[0], "explanation"], [*rows[0], "because"]]
            else:
                rows = [*header, *rows]
            tables[f"{split}/{subject}{suffix.format(split)}.csv"] = table(rows)
    if name == "ceval":
        for subject in MAPPING:
            tables[f"test/{subject}_test.csv"] = table([header[0][:6]])
    return tables


def write_exam(folder, name, layout, tables=None, mapping=MAPPING):
    """Lay a toy release out; returns what `data` may be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mapping.json").write_text(json.dumps(mapping, ensure_ascii=False), encoding="utf-8")
    tables = exam_tables(name) if tables is None else tables
    inside = "data/" if name == "mmlu" else ""
    if layout == "zip":
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for path, text in tables.items():
                archive.writestr(inside + path, text)
            archive.writestr(f"__MACOSX/{inside}dev/._law_dev.csv", b"\xff")
        return folder / f"{name}.zip"
    for path, text in tables.items():
        (folder / inside / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / inside / path).write_text(text, encoding="utf-8")
    return folder


def write_npee(folder, rows, name="objective_task_npee.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(table(rows).replace("\n", "\r\n").encode())
    return folder


NPEE = [
    ["Softest?", "talc", "quartz", "topaz", "Null", "A"],
    ["Hardness of diamond?", "5", "7", "8", "Null", "D"],
    ["Softest?", "talc", "quartz", "topaz", "Null", "A"],
    ["Softest?", "talc", "quartz", "topaz", "Null", "B"],
    ["Moved, or not?", "Null", " till ", "loess", "sand", "C"],
]
APTEST = [
    ["Which?", "a", "b", "c", "d", "e", "E"],
    ["None?", "", "", "", "", "", "D"],
    ["One short?", "a", "b", "c", "d", "", "E"],
    ["", "a", "b", "c", "d", "e", "A"],
]
CHOICE = "Oldest?\nChoose from:\n\nA. Permian\nC. Jurassic\nB. Triassic"
K2_NPEE = {
    "choice": {
        "question": [CHOICE, CHOICE, CHOICE, CHOICE + "\nB. Recent", CHOICE],
        "answer": ["A", "C", "D", "B", "A"],
    },
    "tf": {"question": ["All minerals cleave", "Ice is one "], "answer": ["False", "True"]},
    "qa": {"question": ["Why?"], "answer": ["So."]},
}


def ap_row(stem="Which?", labels="ABCDE", texts="abcde", answer="E"):
    choices = [{"text": text, "label": label} for label, text in zip(labels, texts, strict=True)]
    return {"id": "same", "question": {"stem": stem, "choices": choices}, "answerKey": answer}


def write_k2(folder, npee=K2_NPEE, apstudy=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "geobench_npee.json").write_text(json.dumps(npee))
    apstudy = [ap_row(), ap_row("Second?", "BACDE", "xyzvw", "A")] if apstudy is None else apstudy
    (folder / "geobench_apstudy.json").write_text(json.dumps(apstudy))
    return folder


# Layouts


@pytest.mark.parametrize("layout", ["zip", "folder"])
@pytest.mark.parametrize("name", EXAM_NAMES)
def test_an_exam_is_the_same_however_it_is_laid_out(tmp_path, name, layout):
    given = write_exam(tmp_path / "all" / name, name, layout)
    roots = [given, tmp_path / "all" / name, tmp_path / "all", tmp_path]
    tasks = [open_task(name, root) for root in roots]
    task = tasks[0]
    assert [(t.items, t.demonstrations) for t in tasks] == [(task.items, task.demonstrations)] * 4
    assert [(item.subject, item.question.split(",")[0]) for item in task.items] == [
        ("law", "law"),
        ("stars", "stars"),
    ]
    assert task.items[0].options == ("one", "two", 'a "third"', "four")
    assert task.items[0].answer == 3
    assert task.items[0].place.endswith(", line 1" if name == "mmlu" else ", line 2")
    assert str(tmp_path) not in task.items[0].place
    scored = "val" if name == "ceval" else "test"
    assert f"{scored}\n?" in task.items[0].question
    assert "dev\n?" in task.demonstrations["law"][0].question
    assert task.categories == {"stars": "STEM", "law": "Humanities"}
    assert list(task.categories) == ["stars", "law"]  # in the order of reports
    assert task.titles["stars"] == "天文"
    assert task.language == ("en" if name == "mmlu" else "zh")
    assert task.problems == ()


@pytest.mark.parametrize("name", ["geobench_npee", "k2_apstudy", "mmlu"])
def test_files_are_fingerprinted(tmp_path, name):
    write_npee(tmp_path / "GeoBench", NPEE)
    write_k2(tmp_path / "k2")
    write_exam(tmp_path / "mmlu", "mmlu", "zip")
    files = open_task(name, tmp_path).files
    assert files
    folder = tmp_path / {"geobench_npee": "GeoBench", "k2_apstudy": "k2", "mmlu": "mmlu"}[name]
    for file, digest in files.items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("data", [".", "GeoBench", "GeoBench/objective_task_npee.csv"])
def test_geobench_has_no_header(tmp_path, data):
    write_npee(tmp_path / "GeoBench", NPEE)
    task = open_task("geobench_npee", tmp_path / data)
    assert [item.question for item in task.items] == [row[0] for row in NPEE]
    assert task.items[4].options == ("Null", "till", "loess", "sand")
    assert [item.id for item in task.items] == [f"npee/{n}" for n in range(1, 6)]


def test_a_byte_order_mark_is_no_part_of_the_first_question(tmp_path):
    write_npee(tmp_path, NPEE)
    file = tmp_path / "objective_task_npee.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert open_task("geobench_npee", tmp_path).items[0].question == "Softest?"


def test_a_place_is_the_line_that_a_row_starts_in(tmp_path):
    rows = [["Two\nlines?", *NPEE[0][1:]], NPEE[1]]
    write_npee(tmp_path, rows)
    places = [item.place for item in open_task("geobench_npee", tmp_path).items]
    assert [place.rpartition(" ")[2] for place in places] == ["1", "3"]


def test_k2_options_stand_in_the_order_of_their_letters(tmp_path):
    write_k2(tmp_path / "k2")
    choice = open_task("k2_npee_choice", tmp_path)
    assert choice.items[1].question == "Oldest?"
    assert choice.items[1].options == ("Permian", "Triassic", "Jurassic")
    assert choice.items[1].answer == 2
    ap = open_task("k2_apstudy", tmp_path)
    assert ap.items[1].options == ("y", "x", "z", "v", "w")
    assert ap.items[1].options[ap.items[1].answer] == "y"
    assert len({item.id for item in ap.items}) == 2  # although the file's ids are all the same
    statements = open_task("k2_npee_tf", tmp_path)
    assert [item.options[item.answer] for item in statements.items] == ["False", "True"]
    assert statements.items[1].question == "Ice is one"


def test_the_sample_asks_for_every_fact():
    known = {fact.id: fact for fact in facts()}
    for language in ("en", "zh"):
        task = open_task(f"sample_{language}", None)
        assert sorted(item.id for item in task.items) == sorted(known)
        for item in task.items:
            fact = known[item.tags["fact_id"]]
            subject, right = fact.surface(language)
            assert item.options[item.answer] == right
            assert subject in item.cloze
            assert len({right, *item.distractors}) == 10
            assert {*item.options} <= {right, *item.distractors}
            assert item.subject == item.tags["domain"] == fact.domain
            assert item.tags["exposures"] == str(fact.exposures)
            assert item.tags["invented"] == ("true" if fact.invented else "false")
        assert {item.subject for item in task.items} == set(task.categories) == set(task.titles)
        assert task.problems == ()
        assert open_task(f"sample_{language}", None, variant="cleaned").items == task.items


# Variants


def test_released_counts_every_row_and_says_which_are_wrong_anyway(tmp_path):
    write_npee(tmp_path, APTEST, "objective_task_apstudy.csv")
    task = open_task("geobench_aptest", tmp_path)
    assert len(task.items) == len(APTEST)
    assert [("broken" in item.tags) for item in task.items] == [False, True, True, False]
    assert [item.answer for item in task.items] == [4, 3, 4, 0]
    wrong, doubtful = task.problems[:2], task.problems[2:]
    assert [problem.place for problem in wrong] == [item.place for item in task.items[1:3]]
    assert [problem.reason for problem in wrong] == [
        "scored incorrect: no option has a text",
        "scored incorrect: no text in option E, which is the right one",
    ]
    assert [problem.place for problem in doubtful] == [task.items[3].place]


def test_cleaned_leaves_out_repetitions_broken_rows_and_null(tmp_path):
    write_npee(tmp_path, NPEE)
    write_npee(tmp_path, APTEST, "objective_task_apstudy.csv")
    released = open_task("geobench_npee", tmp_path)
    cleaned = open_task("geobench_npee", tmp_path, variant="cleaned")
    assert cleaned.variant == "cleaned"
    assert [item.id for item in cleaned.items] == ["npee/1", "npee/2", "npee/4", "npee/5"]
    assert [item.options for item in cleaned.items] == [
        ("talc", "quartz", "topaz"),
        ("5", "7", "8", "Null"),  # the answer: none of these
        ("talc", "quartz", "topaz"),
        ("till", "loess", "sand"),
    ]
    before = {item.id: item.options[item.answer] for item in released.items}
    assert all(item.options[item.answer] == before[item.id] for item in cleaned.items)
    reasons = {problem.place.rpartition(" ")[2]: problem.reason for problem in cleaned.problems}
    assert sorted(reasons) == ["2", "3", "4"]
    assert reasons["3"] == "omitted: the same as objective_task_npee.csv, line 1"
    assert "another answer" in reasons["4"]
    aptest = open_task("geobench_aptest", tmp_path, variant="cleaned")
    assert [item.id for item in aptest.items] == ["aptest/1", "aptest/4"]


def test_only_npee_has_a_placeholder(tmp_path):
    tables = exam_tables("mmlu")
    tables["test/law_test.csv"] = table([["Which hypothesis?", "Null", "b", "c", "d", "A"]] * 2)
    task = open_task("mmlu", write_exam(tmp_path, "mmlu", "zip", tables), variant="cleaned")
    assert [len(item.options) for item in task.items] == [4, 4]
    assert task.items[0].options[0] == "Null"


def test_a_repetition_in_another_subject_is_one_too(tmp_path):
    row = table([["Same?", "a", "b", "c", "d", "A"]])
    tables = exam_tables("mmlu") | {"test/law_test.csv": row, "test/stars_test.csv": row}
    data = write_exam(tmp_path, "mmlu", "zip", tables)
    assert len(open_task("mmlu", data).items) == 2
    assert [i.subject for i in open_task("mmlu", data, variant="cleaned").items] == ["law"]


def test_a_key_that_names_no_option_or_two_is_broken(tmp_path):
    write_k2(tmp_path)
    task = open_task("k2_npee_choice", tmp_path)
    assert [("broken" in item.tags) for item in task.items] == [False, False, True, True, False]
    cleaned = open_task("k2_npee_choice", tmp_path, variant="cleaned")
    assert [item.id for item in cleaned.items] == ["npee_choice/1", "npee_choice/2"]
    assert sum("doubtful" in problem.reason for problem in cleaned.problems) == 1


def test_a_broken_demonstration_is_not_shown(tmp_path):
    tables = exam_tables("mmlu")
    tables["dev/law_dev.csv"] = table([["?", "a", "", "c", "d", "A"], ["!", *"abcd", "A"]])
    task = open_task("mmlu", write_exam(tmp_path, "mmlu", "zip", tables))
    assert [item.question for item in task.demonstrations["law"]] == ["!"]
    assert "demonstrations: no text in option B" in task.problems[0].reason


# Refusals


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - set(GROUPS["sample"])))
def test_a_missing_file_is_named_with_where_to_get_it(tmp_path, name):
    with pytest.raises(ValueError, match=r"no files of .*looked for .*(csv|json|zip).*github"):
        open_task(name, tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        open_task(name, tmp_path / "absent")
    with pytest.raises(ValueError, match="needs benchmarks="):
        open_task(name, None)


ROW = ",a,b,c,d,A\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "npee.csv: the file is empty"),
        (b" \r\n\r\n", "npee.csv: the file is empty"),
        (f"q{ROW}q,a,b,c,A\n".encode(), "line 2: 5 cells instead of 6"),
        (f"q{ROW}q{ROW}q, or q{ROW}".encode(), "line 3: 7 cells instead of 6"),
        (b"q\ta\tb\tc\td\tA\n", "line 1: 1 cells instead of 6; it seems to be tab-separated"),
        (f"q{ROW}q,a,b,c,d,E\n".encode(), "line 2: the answer is 'E', but must be one of ABCD"),
        (f"q{ROW}q,a,b,c,d,b\n".encode(), "line 2: the answer is 'b'"),
        (f"q{ROW}q,a,b,c,d,AB\n".encode(), "line 2: the answer is 'AB'"),
        (f"q{ROW}q,a,b,c,d,\n".encode(), "line 2: the answer is ''"),
        (f"Question,A,B,C,D,Answer\nq{ROW}".encode(), "line 1: .*remove the row if it is a header"),
        (f"q{ROW}".encode() + b"q\xff,a,b,c,d,A\n", "line 2: not UTF-8"),
        (f"q{ROW}".encode("utf-16"), "line 1: not UTF-8"),
        (f'q{ROW}"q{ROW}q{ROW}'.encode(), "line 2: .*quotation marks"),
        (f'q{ROW}"q"r{ROW}'.encode(), "line 2: .*quotation marks"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_table_is_refused_by_line(tmp_path, content, message):
    (tmp_path / "objective_task_npee.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_task("geobench_npee", tmp_path)


@pytest.mark.parametrize("layout", ["zip", "folder"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val/law_val.csv": None}, "1 subjects without a file .law_val.csv"),
        ({"dev/law_dev.csv": None}, "1 subjects without a file .law_dev.csv"),
        ({"val/tides_val.csv": "x"}, "does not name the subjects of tides_val.csv"),
        ({"val/law_val.csv": "id,question,A,B,C,D\n0,q,a,b,c,d\n"}, "line 1: 6 cells instead of 7"),
        ({"val/law_val.csv": "0,q,a,b,c,d,A\n"}, "line 1: the columns are not id,"),
        ({"val/law_val.csv": "id,question,A,B,C,D,answer\n"}, "line 1: the table has no question"),
        (
            {"val/law_val.csv": "id,question,A,B,C,D,answer\n0,q,a,b,c,d,A\n0,r,a,b,c,d,A\n"},
            "law_val.csv, line 3: id '0' occurs twice",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_exam_is_refused(tmp_path, layout, changes, message):
    tables = exam_tables("ceval") | changes
    tables = {path: text for path, text in tables.items() if text is not None}
    data = write_exam(tmp_path, "ceval", layout, tables)
    with pytest.raises(ValueError, match=message):
        open_task("ceval", data)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("{", "mapping.json, line 1: not JSON"),
        ("[]", "must be an object of subjects"),
        ("{}", "must be an object of subjects"),
        ('{"law": "STEM"}', "subject 'law' has no name"),
        ('{"law": {"name": "law", "category": "Arts"}}', "category of 'law' is 'Arts'"),
        ('{"law": {"name": "law"}}', "category of 'law' is None"),
        ('{"law": {"name": "\\ud800", "category": "STEM"}}', "lone surrogate"),
        ("[" * 100_000, "not valid JSON"),
        (None, "mapping.json: no such file; put cmmlu.zip and mapping.json"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_malformed_mapping_is_refused(tmp_path, mapping, message):
    data = write_exam(tmp_path, "cmmlu", "zip")
    (tmp_path / "mapping.json").unlink()
    if mapping is not None:
        (tmp_path / "mapping.json").write_text(mapping)
    with pytest.raises(ValueError, match=message):
        open_task("cmmlu", data)


def test_what_is_no_zip_or_a_damaged_one_is_refused(tmp_path):
    data = write_exam(tmp_path, "cmmlu", "zip")
    whole = data.read_bytes()
    at = whole.index(b'"law, test')
    damages = {
        "is not a zip": b"<html>not found</html>",
        "is not a zip .*fetch it again": whole[: len(whole) // 2],
        "cannot be read .*CRC": whole[:at] + b"X" + whole[at + 1 :],
    }
    for message, content in damages.items():
        data.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            open_task("cmmlu", data)
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    with pytest.raises(ValueError, match="no folder dev/"):
        open_task("cmmlu", data)


@pytest.mark.parametrize("name", ["geobench_npee", "k2_npee_choice", "cmmlu"])
def test_a_file_that_is_cut_off_is_refused_or_has_fewer_rows(tmp_path, name):
    write_npee(tmp_path, NPEE)
    write_k2(tmp_path)
    write_exam(tmp_path, "cmmlu", "zip")
    whole = len(open_task(name, tmp_path).items)
    file = {"geobench_npee": "objective_task_npee.csv", "k2_npee_choice": "geobench_npee.json"}
    path = tmp_path / file.get(name, "cmmlu.zip")
    content = path.read_bytes()
    for end in range(0, len(content) - 2, 5):
        path.write_bytes(content[:end])
        try:
            message, rows = "", len(open_task(name, tmp_path).items)
        except ValueError as error:
            message, rows = str(error), 0
        assert rows < whole
        assert rows or path.name in message


@pytest.mark.parametrize(
    ("npee", "message"),
    [
        ([], "`choice` must have `question`"),
        ({"tf": K2_NPEE["tf"]}, "`choice` must have `question`"),
        ({"choice": {"question": ["q"]}}, "`choice` must have `question`"),
        ({"choice": {"question": [1], "answer": ["A"]}}, "`choice` must have `question`"),
        ({"choice": {"question": [CHOICE], "answer": []}}, "two lists of texts of the same length"),
        ({"choice": {"question": [], "answer": []}}, "two lists of texts of the same length"),
        ({"choice": {"question": [CHOICE, "q"], "answer": ["A", "A"]}}, "choice 2: must be a"),
        ({"choice": {"question": [CHOICE], "answer": ["True"]}}, "choice 1: the answer is 'True'"),
        (
            {"choice": {"question": ["q\nChoose from:\nso: A. a\nB. b\nC. c"], "answer": ["B"]}},
            "choice 1: must be a question",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_k2_files_of_another_shape_are_refused(tmp_path, npee, message):
    write_k2(tmp_path, npee=npee)
    with pytest.raises(ValueError, match=message):
        open_task("k2_npee_choice", tmp_path)


@pytest.mark.parametrize(
    ("apstudy", "message"),
    [
        ({}, "must be a list of questions"),
        ([], "must be a list of questions"),
        ([ap_row(), {"id": "x"}], "question 2: must be an object"),
        ([ap_row(), "x"], "question 2: must be an object"),
        ([ap_row(stem=None)], "question 1: must be an object"),
        ([ap_row(labels="A", texts="a", answer="A")], "question 1: must be an object"),
        ([ap_row(answer="Z")], "question 1: the answer is 'Z'"),
        ([ap_row(labels="ABCDZ")], "question 1: the answer is 'Z'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_k2_questions_of_another_shape_are_refused(tmp_path, apstudy, message):
    write_k2(tmp_path, apstudy=apstudy)
    with pytest.raises(ValueError, match=message):
        open_task("k2_apstudy", tmp_path)


def test_true_or_false_is_the_only_answer_to_a_statement(tmp_path):
    write_k2(tmp_path, npee={"tf": {"question": ["Ice melts"], "answer": ["yes"]}})
    with pytest.raises(ValueError, match="tf 1: the answer is 'yes'; must be True or False"):
        open_task("k2_npee_tf", tmp_path)


def test_two_places_are_one_too_many(tmp_path):
    write_npee(tmp_path / "GeoBench", NPEE)
    write_npee(tmp_path / "old" / "GeoBench", NPEE)
    with pytest.raises(ValueError, match=r"occurs twice .*name one of the two"):
        open_task("geobench_npee", tmp_path)
    assert open_task("geobench_npee", tmp_path / "old").items


def test_a_file_of_another_kind_is_refused(tmp_path):
    file = tmp_path / "mmlu.tar"
    file.write_text("x")
    with pytest.raises(ValueError, match=r"mmlu is read from \.zip"):
        open_task("mmlu", file)


def test_names_are_checked():
    assert expand_names(["geobench", "mmlu", "geobench_npee"]) == [*GROUPS["geobench"], "mmlu"]
    assert set(expand_names(["sample", "geobench", "k2", *EXAM_NAMES])) == set(BENCHMARKS)
    with pytest.raises(ValueError, match="'cmlu' does not exist; did you mean cmmlu"):
        expand_names(["cmlu"])
    with pytest.raises(ValueError, match="choose from sample_en,"):
        open_task("zzz", None)
    with pytest.raises(ValueError, match="geobench is a group"):
        open_task("geobench", None)
    with pytest.raises(ValueError, match="variant='clean': must be one of released, cleaned"):
        open_task("sample_en", None, variant="clean")


# Open questions


def write_xlsx(path, rows):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def test_open_questions_of_a_table(tmp_path):
    rows = [["Questions"], ["What is loess? "], [None], ["Why?"]]
    plain = read_open_questions(write_xlsx(tmp_path / "plain.xlsx", rows))
    assert [(q.id, q.question, q.subject, q.reference) for q in plain] == [
        ("2", "What is loess?", "", None),
        ("4", "Why?", "", None),
    ]
    rows = [["ID", "Question", "Category", "Note", "Answer"], [7, "Why?", "soil", 1.5, "So."]]
    (full,) = read_open_questions(write_xlsx(tmp_path / "full.xlsx", rows))
    assert (full.id, full.question, full.subject, full.reference) == ("7", "Why?", "soil", "So.")


def test_open_questions_of_lines(tmp_path):
    file = tmp_path / "open.jsonl"
    lines = [{"question": "什么是黄土？", "reference": "风成沉积"}, {"id": "b", "question": "Why?"}]
    file.write_text("\n\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    assert [(q.id, q.question, q.reference) for q in read_open_questions(file)] == [
        ("1", "什么是黄土？", "风成沉积"),
        ("b", "Why?", None),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: give an object with `question`"),
        ('{"text": "q"}', "line 2: no question"),
        ('{"question": " "}', "line 2: no question"),
        ('{"question": null}', "line 2: no question"),
        ('{"question": 5}', "line 2: `question` must be a text, not 5"),
        ('{"question": "q", "id": true}', "line 2: `id` must be a text"),
        ('{"question": "q", "id": "1"}', "line 2: id '1' is there twice"),
        ('{"question": "q", "questions": "q"}', "line 2: two fields for `question`"),
        ('{"question": "\\ud800"}', "line 2: .*lone surrogate"),
    ],
)
def test_what_is_no_open_question_is_refused_by_line(tmp_path, line, message):
    file = tmp_path / "open.jsonl"
    file.write_text('{"id": "1", "question": "q"}\n' + line)
    with pytest.raises(ValueError, match=message):
        read_open_questions(file)


def test_files_without_open_questions_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_open_questions(tmp_path / "absent.jsonl")
    contents = {
        "a.csv": (b"question\n", "read from .xlsx or .jsonl"),
        "b.jsonl": (b"\n", "the file has no question"),
        "c.jsonl": (b"\xff", "is not UTF-8"),
        "d.xlsx": (b"PK no zip", "is not an .xlsx table"),
    }
    for name, (content, message) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_open_questions(tmp_path / name)
    tables = {
        "no column `question`, only a, b": [["a", "b"], ["q", "r"]],
        "row 3: no question": [["id", "question"], ["1", "q"], ["2", None]],
        "row 3: id 'x' is there twice": [["id", "question"], ["x", "q"], ["x", "r"]],
        "row 2: `question` must be a text": [["question"], [3.5]],
        "row 1: no column `question`": [[]],
        "the file has no question": [["question"]],
    }
    for message, rows in tables.items():
        with pytest.raises(ValueError, match=message):
            read_open_questions(write_xlsx(tmp_path / "e.xlsx", rows))
    with zipfile.ZipFile(tmp_path / "f.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "no xml")
        archive.writestr("xl/workbook.xml", "no xml")
    with pytest.raises(ValueError, match=r"is not an \.xlsx table"):
        read_open_questions(tmp_path / "f.xlsx")


# The released files


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "released", "cleaned", "demonstrations", "subjects", "broken"),
    [
        ("geobench_npee", 177, 135, 0, 1, 0),
        ("geobench_aptest", 1390, 1387, 0, 1, 3),
        ("mmlu", 14042, 13937, 285, 57, 0),
        ("ceval", 1346, 1346, 260, 52, 0),
        ("cmmlu", 11582, 11579, 335, 67, 0),
        ("k2_npee_choice", 182, 135, 0, 1, 2),
        ("k2_npee_tf", 134, 112, 0, 1, 0),
        ("k2_apstudy", 1395, 1392, 0, 1, 3),
    ],
)
def test_counts_are_those_of_the_released_files(
    shared, name, released, cleaned, demonstrations, subjects, broken
):
    task = open_task(name, shared / "eval")
    assert len(task.items) == len({item.id for item in task.items}) == released
    assert sum(map(len, task.demonstrations.values())) == demonstrations
    if demonstrations:
        assert {len(solved) for solved in task.demonstrations.values()} == {5}
    assert len(task.categories) == len(task.titles) == subjects
    assert {item.subject for item in task.items} == set(task.categories)
    assert sum("broken" in item.tags for item in task.items) == broken
    clean = open_task(name, shared / "eval", variant="cleaned")
    assert len(clean.items) == cleaned
    left_out = [problem for problem in clean.problems if problem.reason.startswith("omitted")]
    assert len(left_out) == released - cleaned
    for item in clean.items:
        assert "broken" not in item.tags
        assert 0 <= item.answer < len(item.options)
        assert all(item.options)
    if name in EXAM_NAMES:
        categories = list(dict.fromkeys(task.categories.values()))
        assert categories == ["STEM", "Social Sciences", "Humanities", "Other"]


@pytest.mark.shared
def test_the_faults_of_geobench_are_found(shared):
    folder = shared / "eval" / "jiuzhou"
    npee = open_task("geobench_npee", folder)
    assert sum("Null" in item.options for item in npee.items) == 28
    assert sum(item.options[item.answer] == "Null" for item in npee.items) == 2
    assert len({item.question for item in npee.items}) == 106
    clean = open_task("geobench_npee", folder, variant="cleaned")
    assert sum("Null" in item.options for item in clean.items) == 1
    assert sum("has another answer" in problem.reason for problem in clean.problems) == 7
    aptest = open_task("geobench_aptest", folder)
    assert len({item.question for item in aptest.items}) == 1385
    assert [len(item.options) for item in aptest.items] == [5] * 1390
    wrong = [p.place for p in aptest.problems if p.reason.startswith("scored incorrect")]
    assert [place.rpartition(" ")[2] for place in wrong] == ["195", "384", "787"]
    assert sum("without a question" in problem.reason for problem in aptest.problems) == 3


@pytest.mark.shared
def test_geobench_has_53_open_questions(shared):
    pytest.importorskip("openpyxl")
    file = shared / "eval" / "jiuzhou" / "GeoBench" / "subjective_task.xlsx"
    found = read_open_questions(file)
    assert len(found) == 53
    assert all(question.reference is None for question in found)
