"""A real server in a thread, asked by OpenAI's client."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from inference.generation.engine import Engine
from inference.generation.generate import generate
from inference.generation.load import LoadedModel
from inference.generation.sampling import SamplingConfig
from inference.serving.config import ServeConfig
from inference.serving.scheduler import RequestScheduler
from tests.helpers.toy import toy_config, toy_model
from tokenizer.chat import Message, encode_prompt
from tokenizer.tokenizer import Tokenizer

REASON = 'needs the server and its client: pip install -e ".[dev]"'
pytest.importorskip("fastapi", reason=REASON)
pytest.importorskip("uvicorn", reason=REASON)
openai = pytest.importorskip("openai", reason=REASON)
httpx = pytest.importorskip("httpx", reason=REASON)

from inference.serving.server import Server, bind  # noqa: E402 it needs what is asked for above

QUESTION = [{"role": "user", "content": "What is loess?"}]
ENDLESS = 500_000
"""Tokens that no test could wait for."""


@dataclass
class Running:
    """A server that listens.

    Attributes:
        url: without a path.
        http: for what OpenAI's client would not send.
        client: OpenAI's.
    """

    url: str
    server: Server
    scheduler: RequestScheduler
    http: httpx.Client
    client: openai.OpenAI

    def counts(self) -> tuple[int, int]:
        """Requests that generate, and that wait."""
        health = self.http.get("/health").json()
        return health["running"], health["waiting"]

    def post(self, path: str = "chat/completions", **body: object) -> httpx.Response:
        asked = "messages" if path.startswith("chat") else "prompt"
        body = {"model": "toy", asked: QUESTION if asked == "messages" else "loess"} | body
        return self.http.post(f"/v1/{path}", json={k: v for k, v in body.items() if v != "absent"})


@contextmanager
def running(loaded: LoadedModel, *, key: str = "none", **options: object) -> Iterator[Running]:
    before, hooks = set(threading.enumerate()), count_hooks(loaded)
    config = ServeConfig(folder="toy", port=0, **options)
    scheduler = RequestScheduler(loaded, slots=config.slots, queue=config.queue)
    server = Server(scheduler, config)
    with bind(config.host, config.port) as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            until(lambda: server.started)
            with (
                httpx.Client(base_url=url, timeout=300) as http,
                openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client,
            ):
                yield Running(url, server, scheduler, http, client)
        finally:
            server.should_exit = True
            thread.join(120)
    assert set(threading.enumerate()) <= before
    assert count_hooks(loaded) == hooks


def count_hooks(loaded: LoadedModel) -> int:
    return sum(len(module._forward_pre_hooks) for module in loaded.engine.model.modules())


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def loaded(sample):
    tokenizer = Tokenizer.open(sample / "tokenizer")
    model = toy_model(toy_config(vocab_size=tokenizer.vocab_size))
    return LoadedModel(Engine(model), tokenizer, [])


@pytest.fixture(scope="module")
def server(loaded):
    options = {"slots": 2, "queue": 8, "longest_answer": ENDLESS, "max_body_bytes": 20_000}
    with running(loaded, longest_prompt=300, **options) as server:
        yield server


def expected(loaded, *contents, sampling=None, **options):
    """What the library answers by itself: to a question, or as the texts' continuations."""
    sampling = sampling or SamplingConfig(**options)
    tokenizer = loaded.tokenizer
    chat = isinstance(contents[0], list)
    if chat:
        prompts = [encode_prompt(tokenizer, [Message(**m) for m in contents[0]])]
    else:
        prompts = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in contents]
    return generate(
        loaded.engine,
        prompts,
        sampling,
        eos_ids=loaded.eos_ids,
        decode=tokenizer.decode,
        continue_text=not chat,
    )


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.0}, {"seed": 0}, {"seed": 3, "temperature": 0.7, "top_p": 0.9}],
)
def test_streamed_whole_and_direct_answers_are_the_same(server, loaded, options):
    asked = {"model": "toy", "messages": QUESTION, "max_tokens": 60} | options
    whole = server.client.chat.completions.create(**asked)
    chunks = list(server.client.chat.completions.create(**asked, stream=True))
    text = whole.choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert expected(loaded, QUESTION, max_new_tokens=60, **options)[0].text == text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "length"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) > 10
    assert whole.id != chunks[0].id
    assert abs(whole.created - time.time()) < 60
    assert whole.usage.completion_tokens == 60


def test_texts_are_continued(server, loaded):
    texts = ["The Yangtze", "黄土是"]
    asked = {"model": "toy", "prompt": texts, "max_tokens": 20, "seed": 5}
    whole = server.client.completions.create(**asked)
    answers = expected(loaded, *texts, max_new_tokens=20, seed=5)
    assert [choice.text for choice in whole.choices] == [answer.text for answer in answers]
    pieces = ["", ""]
    for chunk in server.client.completions.create(**asked, stream=True):
        pieces[chunk.choices[0].index] += chunk.choices[0].text
    assert pieces == [answer.text for answer in answers]
    tokenizer = loaded.tokenizer
    ids = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in texts]
    from_ids = server.client.completions.create(**asked | {"prompt": ids})
    assert [choice.text for choice in from_ids.choices] == pieces
    one = server.client.completions.create(**asked | {"prompt": ids[0]})
    assert one.choices[0].text == pieces[0]


def test_every_sampling_parameter_arrives(server, loaded):
    more = {"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.3}
    asked = {"model": "toy", "messages": QUESTION, "max_completion_tokens": 30, "seed": 2}
    answer = server.client.chat.completions.create(**asked, extra_body=more)
    direct = expected(loaded, QUESTION, max_new_tokens=30, seed=2, **more)[0].text
    assert answer.choices[0].message.content == direct
    assert direct != expected(loaded, QUESTION, max_new_tokens=30, seed=2)[0].text


def test_without_a_seed_answers_differ(server):
    texts = {server.post(max_tokens=20).json()["choices"][0]["message"]["content"] for _ in "1234"}
    assert len(texts) == 4


def test_contents_may_come_in_parts(server):
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "loess?"}]
    # As a client sends back what it was answered.
    answered = {"role": "assistant", "content": "Silt.", "refusal": None, "tool_calls": None}
    talks = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}, *rest]
        for content, rest in (
            (parts, [answered, *QUESTION]),
            ("What is loess?", [{"role": "assistant", "content": "Silt."}, *QUESTION]),
        )
    ]
    answers = [server.post(messages=talk, seed=1, max_tokens=9).json() for talk in talks]
    assert answers[0]["choices"] == answers[1]["choices"]
    assert answers[0]["usage"] == answers[1]["usage"]


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_end_an_answer(server, loaded, stream):
    text = expected(loaded, QUESTION, max_new_tokens=40, temperature=0.0)[0].text
    stop = text[12:15]
    asked = {"model": "toy", "messages": QUESTION, "temperature": 0, "max_tokens": 40}
    answer = server.client.chat.completions.create(**asked, stop=["never", stop], stream=stream)
    if stream:
        chunks = list(answer)
        got = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        got, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (got, reason) == (text[: text.index(stop)], "stop")


def test_usage_counts_tokens(server, loaded):
    asked = {"model": "toy", "messages": QUESTION, "max_tokens": 7, "seed": 0}
    prompt = len(encode_prompt(loaded.tokenizer, [Message(**QUESTION[0])]))
    usage = server.client.chat.completions.create(**asked).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (
        prompt,
        7,
        prompt + 7,
    )
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(server.client.chat.completions.create(**asked, **options))
    assert chunks[-1].choices == []
    assert chunks[-1].usage == usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_an_eos_ends_an_answer_and_is_counted(loaded):
    ids = expected(loaded, QUESTION, max_new_tokens=40, temperature=0.0)[0].ids
    eos = next(id for n, id in enumerate(ids) if n >= 5 and id not in ids[:n])
    ending = LoadedModel(loaded.engine, loaded.tokenizer, [eos])
    with running(ending) as server:
        answer = server.post(temperature=0).json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == ids.index(eos) + 1


def test_a_full_context_is_a_length(loaded):
    shape = {"sliding_window": None, "max_position_embeddings": 50}
    model = toy_model(toy_config(vocab_size=loaded.tokenizer.vocab_size, **shape))
    with running(LoadedModel(Engine(model), loaded.tokenizer, [])) as server:
        answer = server.post(max_tokens=1000).json()
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["total_tokens"] == 50
        response = server.post("completions", prompt=[5] * 50)
        assert "prompt: has 50 tokens; this server takes 49" in response.text


def test_eight_clients_share_two_slots(server, loaded):
    def ask(n):
        messages = [{"role": "user", "content": f"Question number {n}?"}]
        asked = {"model": "toy", "messages": messages, "max_tokens": 40, "seed": n}
        if n % 2:
            return server.client.chat.completions.create(**asked).choices[0].message.content
        chunks = server.client.chat.completions.create(**asked, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(ask, range(8)))
    for n, answer in enumerate(answers):
        messages = [{"role": "user", "content": f"Question number {n}?"}]
        assert expected(loaded, messages, max_new_tokens=40, seed=n)[0].text == answer
    assert server.counts() == (0, 0)


@contextmanager
def endless_stream(server: Running) -> Iterator[Iterator[str]]:
    """A stream that has begun; closed in the middle at the end."""
    body = {"model": "toy", "messages": QUESTION, "max_tokens": ENDLESS, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        yield lines


@contextmanager
def patient_client(server: Running, **body: object) -> Iterator[None]:
    """A client that waits for a whole answer without end; it leaves at the end."""
    content = json.dumps({"model": "toy", "messages": QUESTION, "max_tokens": ENDLESS} | body)
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: toy",
        "Content-Type: application/json",
        f"Content-Length: {len(content.encode())}",
    ]
    place = httpx.URL(server.url)
    with socket.create_connection((place.host, place.port)) as connection:
        connection.sendall("\r\n".join([*head, "", content]).encode())
        yield
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):  # an endless answer has not ended
            connection.recv(1)


def test_a_client_that_leaves_a_stream_frees_its_slot(server):
    with endless_stream(server) as lines:
        for _ in range(20):
            next(lines)
        assert server.counts() == (1, 0)
    until(lambda: server.counts() == (0, 0))


def test_a_client_that_stops_waiting_for_a_whole_answer_frees_its_slot(server):
    with patient_client(server):
        until(lambda: server.counts() == (1, 0))
    until(lambda: server.counts() == (0, 0))


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_it_waits_is_forgotten(server, stream):
    with endless_stream(server), endless_stream(server):
        if stream:
            with endless_stream(server):  # its opening comes at once
                assert server.counts() == (2, 1)
        else:
            with patient_client(server):
                until(lambda: server.counts() == (2, 1))
        until(lambda: server.counts() == (2, 0))
    until(lambda: server.counts() == (0, 0))


def test_the_queue_is_bounded_and_served_in_order(loaded):
    with running(loaded, slots=1, queue=2, longest_answer=ENDLESS) as server:
        ended = []

        def ask(n):
            ended.append((n, server.post(max_tokens=3).status_code))

        with ThreadPoolExecutor(2) as clients, endless_stream(server):
            for n in range(2):
                clients.submit(ask, n)
                until(lambda n=n: server.counts() == (1, n + 1))
            refused = server.post(max_tokens=3)
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "queue_full"
            assert refused.headers["retry-after"] == "1"
        assert sorted(ended) == [(0, 200), (1, 200)]
        assert server.post(max_tokens=3).status_code == 200


def test_a_long_prompt_is_left_in_the_middle(loaded):
    inside, go, layers = threading.Event(), threading.Event(), []
    first, second = loaded.engine.model.model.layers

    def hold(*_):
        inside.set()
        assert go.wait(300)

    with running(loaded) as server:
        handles = [
            first.register_forward_hook(hold),
            second.register_forward_hook(lambda *_: layers.append(2)),
        ]
        with patient_client(server, max_tokens=1000):
            until(inside.is_set)
            assert server.counts() == (1, 0)
        (job,) = server.scheduler._running
        until(lambda: job.cancelled)
        go.set()
        until(lambda: server.counts() == (0, 0))
        for handle in handles:
            handle.remove()
    assert not layers


def test_the_end_of_the_server_ends_its_streams(loaded):
    with running(loaded, slots=1, longest_answer=ENDLESS) as server, ThreadPoolExecutor(1) as pool:
        with endless_stream(server) as lines:
            waiting = pool.submit(server.post, max_tokens=5)
            until(lambda: server.counts() == (1, 1))
            server.server.should_exit = True
            *_, last = (line for line in lines if line)
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert waiting.result().status_code == 503


class Broken:
    """A tokenizer that cannot decode."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def decode(self, ids):
        raise RuntimeError("the inner secret")


def test_a_failure_is_logged_and_not_told(loaded, capsys, monkeypatch):
    with running(LoadedModel(loaded.engine, Broken(loaded.tokenizer), [])) as server:
        with pytest.raises(openai.InternalServerError) as caught:
            server.client.chat.completions.create(model="toy", messages=QUESTION)
        assert caught.value.body["code"] == "internal_error"
        with pytest.raises(openai.APIError, match="the server failed"):
            list(server.client.chat.completions.create(model="toy", messages=QUESTION, stream=True))
        response = server.post()
        assert "secret" not in response.text
        assert "Traceback" not in response.text
        assert server.counts() == (0, 0)
        monkeypatch.setattr("inference.serving.app.read_body", Broken.decode)
        assert server.post().json() == response.json()
    log = capsys.readouterr().err
    assert log.count("RuntimeError: the inner secret") == 4


def test_models_and_health(server):
    assert [model.id for model in server.client.models.list()] == ["toy"]
    assert server.client.models.retrieve("toy").owned_by == "local"
    with pytest.raises(openai.NotFoundError, match="not on this server, which has 'toy'"):
        server.client.models.retrieve("gpt-4")
    health = server.http.get("/health").json()
    assert health == {"status": "ok", "model": "toy", "slots": 2, "running": 0, "waiting": 0}


def test_an_api_key(loaded):
    with running(loaded, key="wrong", api_key="right") as server:
        with pytest.raises(openai.AuthenticationError, match="API key"):
            server.client.models.list()
        assert server.post().status_code == 401
        assert server.http.get("/health").status_code == 200
        for scheme, status in (("Bearer", 200), ("Basic", 401)):
            server.http.headers["Authorization"] = f"{scheme} right"
            assert server.post(max_tokens=2).status_code == status


CHAT_REFUSED = [
    ({"model": "absent"}, "model", "must be given"),
    ({"model": 3}, "model", "valid string"),
    ({"messages": "absent"}, "messages", "must be given"),
    ({"messages": []}, "messages", "no messages"),
    ({"messages": "hi"}, "messages", "valid list"),
    ({"messages": [7]}, "messages[0]", "valid dictionary"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "must be given"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "string or"),
    ({"messages": [{"role": "user", "content": "  "}]}, "messages[0]", "empty user message"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "unknown role"),
    ({"messages": [*QUESTION, *QUESTION]}, "messages[1]", "take turns"),
    (
        {"messages": [*QUESTION, {"role": "assistant", "content": "x"}]},
        "messages",
        "end with a user message",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        "messages[0].content[0].image_url",
        "no such parameter",
    ),
    (
        {"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]},
        "messages[0].tool_calls",
        "not implemented",
    ),
    ({"max_tokens": 0}, "max_tokens", "must be 1 to 500,000"),
    ({"max_tokens": ENDLESS + 1}, "max_tokens", "must be 1 to 500,000"),
    ({"max_tokens": True}, "max_tokens", "valid integer"),
    ({"max_tokens": 5.5}, "max_tokens", "valid integer"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", "give one"),
    ({"temperature": -1}, "temperature", "at least 0.001"),
    ({"temperature": "1"}, "temperature", "valid number"),
    ({"top_p": 0}, "top_p", "(0, 1]"),
    ({"top_k": 0}, "top_k", "at least 1"),
    ({"min_p": 2}, "min_p", "[0, 1]"),
    ({"repetition_penalty": 0}, "repetition_penalty", "positive"),
    ({"stop": ""}, "stop", "empty text"),
    ({"stop": list("abcde")}, "stop", "more than 4"),
    ({"stop": [1]}, "stop[0]", "valid string"),
    ({"stream": "yes"}, "stream", "valid boolean"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream=true"),
    ({"n": 2}, "n", "repeat the request with other seeds"),
    ({"n": True}, "n", "not implemented"),
    ({"logprobs": True}, "logprobs", "not implemented"),
    ({"tools": [{"type": "function"}]}, "tools", "not implemented"),
    ({"response_format": {"type": "json_object"}}, "response_format", "not implemented"),
    ({"logit_bias": {"5": 1}}, "logit_bias", "not implemented"),
    ({"presence_penalty": 0.5}, "presence_penalty", "use repetition_penalty"),
    ({"temprature": 1}, "temprature", "no such parameter"),
    ({"user": 7}, "user", "must be a string"),
]
TEXT_REFUSED = [
    ({"prompt": "absent"}, "prompt", "must be given"),
    ({"prompt": ""}, "prompt", "empty"),
    ({"prompt": []}, "prompt", "empty"),
    ({"prompt": ["a", ""]}, "prompt", "empty"),
    ({"prompt": ["a", 5]}, "prompt", "must be a text"),
    ({"prompt": {"a": 5}}, "prompt", "must be a text"),
    ({"prompt": [5, True]}, "prompt", "must be a text"),
    ({"prompt": [5, 2048]}, "prompt", "the id 2048; ids are 0 to 2047"),
    ({"prompt": [-1]}, "prompt", "the id -1"),
    ({"prompt": [5] * 301}, "prompt", "301 tokens; this server takes 300"),
    ({"prompt": ["a"] * 17}, "prompt", "17 texts; this server takes 16"),
    ({"echo": True}, "echo", "before the answer yourself"),
    ({"best_of": 3}, "best_of", "not implemented"),
    ({"messages": QUESTION}, "messages", "no such parameter"),
]


@pytest.mark.parametrize(
    ("path", "body", "param", "reason"),
    [("chat/completions", *case) for case in CHAT_REFUSED]
    + [("completions", *case) for case in TEXT_REFUSED],
)
def test_what_cannot_be_done_is_refused_by_name(server, path, body, param, reason):
    response = server.post(path, **body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert error["type"] == "invalid_request_error"
    assert reason in error["message"]
    assert param.split("[")[0].split(".")[0] in error["message"]
    assert server.scheduler.running == server.scheduler.waiting == 0


def test_what_means_nothing_is_taken(server):
    nothing = {"n": 1, "logprobs": False, "tools": [], "presence_penalty": 0.0, "logit_bias": {}}
    more = {"response_format": {"type": "text"}, "user": "me", "temperature": None, "stop": None}
    assert server.post(**nothing, **more, max_tokens=2).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"model": NaN',
        b"[" * 15_000,
        b'{"a": ' + b"9" * 9_000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(server, content):
    headers = {"Content-Type": "application/json"}
    response = server.http.post("/v1/completions", content=content, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_json"


@pytest.mark.parametrize("text", [r"\ud800", r"a\udfff"])
def test_text_without_a_utf8_form_is_refused(server, text):
    headers = {"Content-Type": "application/json"}
    for body in (
        f'{{"model": "toy", "prompt": "{text}"}}',
        f'{{"model": "toy", "prompt": "a", "stop": "{text}"}}',
        f'{{"model": "{text}", "prompt": "a"}}',
        f'{{"model": "toy", "prompt": "a", "{text}": 1}}',
    ):
        response = server.http.post("/v1/completions", content=body, headers=headers)
        assert response.status_code == (404 if body.endswith('"prompt": "a"}') else 400), body
        assert response.json()["error"]["message"]


def test_other_ways_to_ask_wrongly(server):
    for method, path, status in (
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/", 404),
        ("GET", "/v1/models/", 404),
    ):
        response = server.http.request(method, path)
        assert response.status_code == status, path
        assert path in response.json()["error"]["message"] or path == "/v1/models/"
    with pytest.raises(openai.NotFoundError, match="not on this server, which has 'toy'"):
        server.client.chat.completions.create(model="gpt-4", messages=QUESTION)
    large = server.post("completions", prompt="a" * 30_000)
    assert large.status_code == 413
    assert large.json()["error"]["code"] == "body_too_large"
    page = server.http.post(
        "/v1/completions", content=b"{}", headers={"Content-Type": "text/plain"}
    )
    assert page.status_code == 415


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"slots": 0}, "slots=0"),
        ({"queue": -1}, "queue=-1"),
        ({"port": 70_000}, "port=70000"),
        ({"api_key": ""}, "api_key"),
        ({"max_new_tokens": 5000}, "longest_answer=4096"),
        ({"name": ""}, "name"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_a_wrong_server_is_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        ServeConfig(folder="toy", **options)


def test_a_taken_port_is_refused_before_any_work(server):
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(ValueError, match=f"port={port}: .*choose another"):
        bind("127.0.0.1", port)
