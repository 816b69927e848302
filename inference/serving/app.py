"""Routes of the API; a request whose client disconnects is cancelled."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from inference.generation.generate import context_limit
from inference.serving.config import ServeConfig
from inference.serving.errors import APIError, failure
from inference.serving.protocol import Body, ChatBody, CompletionBody, read_body, sampling_of
from inference.serving.reply import ResponseBuilder
from inference.serving.scheduler import GenerationRequest, QueuedRequest, RequestScheduler
from tokenizer.chat import Message, encode_prompt, find_problem

logger = logging.getLogger(__name__)
GONE = 499
"""Status of nginx for a request whose client has disconnected."""


def build_app(scheduler: RequestScheduler, config: ServeConfig) -> FastAPI:
    """The application; its shutdown closes the scheduler."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await scheduler.close()

    off: dict[str, Any] = {"openapi_url": None, "docs_url": None, "redoc_url": None}
    app = FastAPI(lifespan=lifespan, redirect_slashes=False, **off)
    routes = Routes(scheduler, config)
    secured = [Depends(routes.check_key)]
    app.add_api_route("/health", routes.health)
    app.add_api_route("/v1/models", routes.models, dependencies=secured)
    app.add_api_route("/v1/models/{name:path}", routes.model, dependencies=secured)
    for path, route in (("chat/completions", routes.chat), ("completions", routes.completions)):
        app.add_api_route(f"/v1/{path}", route, methods=["POST"], dependencies=secured)
    app.add_exception_handler(APIError, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _failed)
    return app


class Routes:
    """Handlers of the routes."""

    def __init__(self, scheduler: RequestScheduler, config: ServeConfig) -> None:
        self.scheduler, self.config = scheduler, config
        self.created = int(time.time())
        self._watchers: set[asyncio.Task[None]] = set()

    async def check_key(self, request: Request) -> None:
        """APIError if a key is required and the request lacks it."""
        if self.config.api_key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        key, given = self.config.api_key.encode(), given.strip().encode("latin-1")
        if scheme.lower() != "bearer" or not secrets.compare_digest(given, key):
            message = "wrong or missing API key; send it as Authorization: Bearer <key>"
            raise APIError(401, message, code="invalid_api_key")

    async def health(self) -> Response:
        """Status of the server, with running and waiting requests."""
        scheduler = self.scheduler
        counts = {
            "slots": scheduler.slots,
            "running": scheduler.running,
            "waiting": scheduler.waiting,
        }
        return _json({"status": "ok", "model": self.config.served_name, **counts})

    async def models(self) -> Response:
        """List of the one model."""
        return _json({"object": "list", "data": [self._model()]})

    async def model(self, name: str) -> Response:
        """The model of a name."""
        self._check_name(name)
        return _json(self._model())

    async def chat(self, request: Request) -> Response:
        """Chat completion."""
        raw = await self._read(request)
        # In a thread, because encoding a long text takes time.
        body, work = await asyncio.to_thread(self._prepare_chat, raw)
        return await self._answer(request, body, work, chat=True)

    async def completions(self, request: Request) -> Response:
        """Completion of texts."""
        raw = await self._read(request)
        body, work = await asyncio.to_thread(self._prepare_completion, raw)
        return await self._answer(request, body, work, chat=False)

    def _model(self) -> dict[str, Any]:
        name = self.config.served_name
        return {"id": name, "object": "model", "created": self.created, "owned_by": "local"}

    def _check_name(self, name: str) -> None:
        if name != self.config.served_name:
            message = f"model={name!r}: not on this server, which has {self.config.served_name!r}"
            raise APIError(404, message, param="model", code="model_not_found")

    async def _read(self, request: Request) -> bytes:
        """Body of a request; APIError if it is not JSON or too large."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # Browsers let any web page send other types to any address.
            message = f"Content-Type is {kind or 'missing'}; it must be application/json"
            raise APIError(415, message, code="unsupported_content_type")
        limit, size, pieces = self.config.max_body_bytes, 0, []
        async for piece in request.stream():
            size += len(piece)
            if size <= limit:  # the rest is read too, because a writing client does not read
                pieces.append(piece)
        if size > limit:
            message = f"the body has {size:,} bytes; this server takes {limit:,}"
            raise APIError(413, message, code="body_too_large")
        return b"".join(pieces)

    def _prepare_chat(self, raw: bytes) -> tuple[Body, GenerationRequest]:
        body = read_body(raw, ChatBody)
        self._check_name(body.model)
        messages = [Message(message.role, message.text) for message in body.messages]
        problem = find_problem(messages)
        param = f"messages[{problem[0]}]" if problem and messages else "messages"
        try:
            prompt = encode_prompt(self.scheduler.loaded.tokenizer, messages)
        except ValueError as error:
            raise APIError(400, str(error), param=param) from None
        return body, self._work(body, [prompt], "messages", continue_text=False)

    def _prepare_completion(self, raw: bytes) -> tuple[Body, GenerationRequest]:
        body = read_body(raw, CompletionBody)
        self._check_name(body.model)
        if len(body.prompts) > self.config.batch_size:
            message = f"prompt: has {len(body.prompts):,} texts; this server takes "
            raise APIError(400, f"{message}{self.config.batch_size:,}", param="prompt")
        tokenizer = self.scheduler.loaded.tokenizer
        try:
            prompts = [
                [tokenizer.bos_id, *tokenizer.encode(prompt)] if isinstance(prompt, str) else prompt
                for prompt in body.prompts
            ]
        except ValueError as error:
            raise APIError(400, f"prompt: {error}", param="prompt") from None
        return body, self._work(body, prompts, "prompt", continue_text=True)

    def _work(
        self, body: Body, prompts: list[list[int]], param: str, *, continue_text: bool
    ) -> GenerationRequest:
        shape = self.scheduler.loaded.engine.model.config
        context = context_limit(shape)
        limit = self.config.longest_prompt
        limit = limit if context is None else min(limit, context - 1)
        for prompt in prompts:
            if len(prompt) > limit:
                message = f"{param}: has {len(prompt):,} tokens; this server takes {limit:,}"
                raise APIError(400, message, param=param, code="context_length_exceeded")
            wrong = next((id for id in prompt if not 0 <= id < shape.num_tokens), None)
            if wrong is not None:
                message = f"{param}: has the id {wrong}; ids are 0 to {shape.num_tokens - 1}"
                raise APIError(400, message, param=param)
        sampling = sampling_of(body, self.config, self.config.longest_answer)
        indices = None if body.seed is None else list(range(len(prompts)))
        return GenerationRequest(prompts, sampling, continue_text, indices)

    async def _answer(
        self, request: Request, body: Body, work: GenerationRequest, *, chat: bool
    ) -> Response:
        """Generate the response while the client is connected."""
        job = self.scheduler.submit(work)
        watcher = asyncio.create_task(self._watch(request, job))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        usage = body.usage_in_stream
        reply = ResponseBuilder(work, self.config.served_name, chat=chat, usage_in_stream=usage)
        if body.stream:
            headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            pieces = self._stream(job, reply)
            return StreamingResponse(pieces, media_type="text/event-stream", headers=headers)
        started = time.monotonic()
        try:
            async for event in job.events():
                reply.add(event)
        finally:
            _log(reply, job, started)
        return _json(reply.whole())

    async def _watch(self, request: Request, job: QueuedRequest) -> None:
        """Cancel a request when its client disconnects, which also follows the response."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.scheduler.cancel(job)

    async def _stream(self, job: QueuedRequest, reply: ResponseBuilder) -> AsyncIterator[bytes]:
        started = time.monotonic()
        try:
            for chunk in reply.opening():
                yield _event(chunk)
            async for event in job.events():
                reply.add(event)
                for chunk in reply.chunks(event):
                    yield _event(chunk)
            for chunk in reply.closing():
                yield _event(chunk)
            yield b"data: [DONE]\n\n"
        except APIError as refusal:
            yield _event(refusal.body)
        finally:
            self.scheduler.cancel(job)
            _log(reply, job, started)


def _log(reply: ResponseBuilder, job: QueuedRequest, started: float) -> None:
    """Log one line per request, without any text of it."""
    ends = sorted({reason or "interrupted" for reason in reply.finish_reasons})
    end = "failed" if job.failed else "/".join(ends)
    counts = f"{reply.prompt_tokens} + {reply.completion_tokens} tokens"
    logger.info("%s: %s in %.2f s, %s", reply.id, counts, time.monotonic() - started, end)


def _event(data: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % _utf8(data)


def _json(data: dict[str, Any], status: int = 200) -> Response:
    return Response(_utf8(data), status, media_type="application/json")


def _utf8(data: dict[str, Any]) -> bytes:
    # A message may quote a lone surrogate, which only JSON's escapes can encode.
    return json.dumps(data, ensure_ascii=False).encode("utf-8", "backslashreplace")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, APIError)
    response = _json(error.body, error.status)
    if error.status == 429:
        response.headers["Retry-After"] = "1"
    return response


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: no such route"
    if error.status_code == 405:
        message = f"{message} with this method"
    response = _json(APIError(error.status_code, message, code="no_route").body, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=GONE)


async def _failed(_: Request, __: Exception) -> Response:
    """Response to an unexpected error, which the server logs."""
    return _json(failure().body, 500)
