"""Files of instruction data become records, or are refused by what they are."""

import gzip
import json

import pytest
import zstandard

from data.records.chat_formats import read_conversations
from data.records.readers import BadRecord, find_inputs
from data.records.record_files import FORMATS, read_parsed
from tests.unit.data.records.test_messages import ALPACA, OPENAI, SHAREGPT, TRANSLATED


def lines_of(*records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def parquet(records):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(records), file)
    return file.getvalue().to_pybytes()


FORMS = {
    "a.json": lambda records: json.dumps(records).encode(),
    "a.JSON": lambda records: json.dumps(records).encode(),
    "a.json.gz": lambda records: gzip.compress(json.dumps(records).encode()),
    "a.json.zst": lambda records: zstandard.compress(json.dumps(records).encode()),
    "upper.JSONL": lambda records: lines_of(*records),
    "upper.jsonl.GZ": lambda records: gzip.compress(lines_of(*records)),
    "a.parquet": parquet,
    "bom.json": lambda records: b"\xef\xbb\xbf" + json.dumps(records).encode(),
    "a.jsonl": lambda records: lines_of(*records),
    "bom.jsonl": lambda records: b"\xef\xbb\xbf" + lines_of(*records),
    "windows.jsonl": lambda records: lines_of(*records).replace(b"\n", b"\r\n"),
    "a.jsonl.gz": lambda records: gzip.compress(lines_of(*records)),
    "a.jsonl.zst": lambda records: zstandard.compress(lines_of(*records)),
}


@pytest.mark.parametrize("name", FORMS)
def test_files_give_the_same_records(tmp_path, name):
    path = tmp_path / name
    every = {"instruction", "input", "output", "conversations", "messages", "x"}
    records = [ALPACA, {"x": 1}, SHAREGPT, OPENAI]
    if name.endswith(".parquet"):  # each row has all columns
        records = [dict.fromkeys(sorted(every)) | record for record in records]
    path.write_bytes(FORMS[name](records))
    paths = find_inputs([str(path)], None, FORMATS)
    assert paths == [str(path)]
    entries = list(read_conversations(paths))
    first = 0 if ".json" in name.lower() and ".jsonl" not in name.lower() else 1
    assert [entry.line for entry in entries] == list(range(first, first + 4))
    assert {entry.file for entry in entries} == {str(path)}
    assert isinstance(entries[1].conversation, BadRecord)
    assert [entries[i].conversation for i in (0, 2, 3)] == [(TRANSLATED, (), ())] * 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "invalid JSON"),
        (b'{"instruction": ' + b"9" * 5000 + b"}", "invalid JSON"),
        (b'{"instruction": "\xff"}', "invalid UTF-8"),
        (b"  ", "empty line"),
        (b"", "empty line"),
        (b"null", "not a JSON object"),
        (b'{"instruction": "a", "output": "\\ud800"}', "lone surrogate"),
    ],
)
def test_bad_lines_are_reported_and_the_others_read(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of(ALPACA) + line + b"\n" + lines_of(OPENAI))
    before, bad, after = read_conversations([str(path)])
    assert before.conversation == after.conversation == (TRANSLATED, (), ())
    assert (bad.line, str(bad.conversation)) == (2, reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"[1, 2", "not JSON"),
        (b'["\xff"]', "not UTF-8"),
        (lines_of(ALPACA, ALPACA), "name it .jsonl"),
        (b'{"instruction": "a"}', "not an array.*put its record into one"),
        (json.dumps(OPENAI).encode(), "not an array.*put its record into one"),
        (b'"text"', "not an array"),
        (json.dumps({"data": [ALPACA], "version": 1}).encode(), "under 'data'; write that list"),
        (json.dumps({"train": [ALPACA]}).encode(), "a list of them under 'train'"),
        (json.dumps({"instruction": ["a"], "output": ["b"]}).encode(), "an object of columns"),
        (json.dumps({"q": {"0": "a"}, "a": {"0": "b"}}).encode(), "an object of columns"),
        (json.dumps([ALPACA]).encode("utf-16"), "UTF-16, not UTF-8; convert it: iconv"),
        (json.dumps([{"output": "岩石"}], ensure_ascii=False).encode("gb18030"), "perhaps GB18030"),
        (json.dumps([ALPACA])[:-1].encode() + b",]", "not JSON"),
    ],
)
def test_a_file_that_is_no_array_is_fatal(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as error:
        list(read_conversations([str(path)]))
    assert str(path) in str(error.value)


def test_files_without_records_give_none(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.jsonl").touch()
    paths = [str(tmp_path / name) for name in ("a.json", "b.jsonl")]
    assert list(read_conversations(paths)) == []


CHINESE = {"instruction": "黄土是什么？", "output": "风成的粉砂。"}
RECORDS = [ALPACA, CHINESE, ALPACA]


def pretty(value):
    return json.dumps(value, ensure_ascii=False, indent=2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (json.dumps(RECORDS), r"one array of records.* name it \.json$"),
        (pretty(RECORDS), r"name it \.json$"),
        ("\n" + pretty(RECORDS), r"name it \.json$"),
        ("[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n", r"name it \.json$"),
        ("[" + ",\n".join(map(json.dumps, RECORDS)) + "]", r"name it \.json$"),
        ("\n".join(map(pretty, RECORDS)), "take several lines each; write one record per line"),
        (pretty({"data": RECORDS}), "take several lines each"),
        (lines_of(*RECORDS).decode().encode("utf-16"), "UTF-16, not UTF-8; convert it: iconv -f U"),
        (lines_of(*RECORDS).decode().encode("utf-16-le"), "UTF-16"),
        (
            pretty(CHINESE).replace("\n", "").encode("gbk"),
            r"GB18030 \(GBK\); convert it: iconv -f G",
        ),
        ("d\u00e9j\u00e0 vu: \u00ff\n".encode("latin-1") * 3, "not UTF-8"),
    ],
)
def test_a_jsonl_file_that_is_something_else_is_refused_by_what_it_is(tmp_path, content, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=reason) as error:
        list(read_conversations([str(path)]))
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    "first",
    [b"{", b"{ not JSON", b'{"instruction": "caf\xe9s", "output": "a"}', b"\xff\xfa"],
)
def test_one_bad_line_at_the_beginning_is_a_bad_line(tmp_path, first):
    path = tmp_path / "a.jsonl"
    path.write_bytes(first + b"\n" + lines_of(ALPACA, OPENAI, CHINESE))
    entries = list(read_conversations([str(path)]))
    assert [isinstance(entry.conversation, BadRecord) for entry in entries] == [
        *(True, False, False, False)
    ]


def test_a_line_may_be_a_list_of_messages(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of(OPENAI["messages"], OPENAI["messages"]))
    entries = list(read_conversations([str(path)]))
    assert [entry.conversation for entry in entries] == [(TRANSLATED, (), ())] * 2


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.json.zst"])
def test_damaged_files_are_refused(tmp_path, name):
    packed = FORMS[name]([ALPACA] * 50)
    path = tmp_path / name
    for content in (packed[:-9], lines_of(ALPACA)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            list(read_conversations([str(path)]))


def test_a_table_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "a.csv").write_text("instruction,output\nq,a\n")
    with pytest.raises(ValueError, match=r"write the rows as \.jsonl, an object each, or the name"):
        find_inputs([str(tmp_path / "a.csv")], None, FORMATS)


def test_rows_of_a_parquet_file(tmp_path):
    turns = [{"from": "human", "value": "Translate.\nhola", "loss": None}]
    turns += [{"from": "gpt", "value": "hello", "loss": False}]
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet([{"conversations": turns, "images": [], "id": n} for n in range(300)]))
    entries = list(read_conversations([str(path)]))
    masked = [TRANSLATED[0], TRANSLATED[1]._replace(train=False)]
    assert [entry.line for entry in entries] == list(range(1, 301))
    assert all(entry.conversation == (masked, (), ("id",)) for entry in entries)


def test_a_text_of_a_parquet_file_that_is_not_utf8_is_a_bad_record(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    raw = pa.array([b"q", b"\xff", b"q"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": raw, "completion": ["a"] * 3}), tmp_path / "a.parquet")
    found = [record for _, record in read_parsed(str(tmp_path / "a.parquet"))]
    assert [isinstance(record, BadRecord) for record in found] == [False, True, False]
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="is not a Parquet file"):
        find_inputs([str(tmp_path / "a.parquet")], None, FORMATS)
