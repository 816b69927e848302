"""Answers to open questions -> a judge's verdicts, and what they amount to.

Single answers get a score for every criterion. Pairs are judged in both orders, since judges
favour places: a preference counts where both orders agree in it, else the pair is a tie. A reply
that is no verdict is asked for again, and given up after some attempts; nothing is guessed for it.

Source for both modes and for swapping: Zheng et al., Judging LLM-as-a-Judge with MT-Bench and
Chatbot Arena (2023), sections 3.1 to 3.4.
"""

import hashlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evaluation.judge.answers import read_answers
from evaluation.judge.client import Endpoint, Reply, Unanswered, ask
from evaluation.judge.config import JudgeConfig
from evaluation.judge.parse import Malformed, parse_choices, parse_scores
from evaluation.judge.prompts import Judgement, build_prompt, correct_prompt
from evaluation.judge.summary import summarize_pairs, summarize_scores
from evaluation.judge.transcript import (
    AGAIN,
    FAILED,
    VERDICT,
    Transcript,
    open_transcript,
    read_transcript,
)
from inference.generation.question_files import OpenQuestion, read_open_questions
from storage.atomic import write_json
from storage.lock import only_writer
from tokenizer.text import check_text

LONGEST_PAUSE = 60.0
"""Seconds between two attempts, whatever the endpoint asks for."""


def judge_answers(config: JudgeConfig) -> dict[str, Any]:
    """Ask for every verdict that is not there yet, and write `summary.json`, which is returned.

    Raises:
        ValueError: questions or answers cannot be read, `out` belongs to another command, or the
            endpoint refuses every request. What was judged until then is kept.
    """
    endpoint = config.open_endpoint()
    questions = read_open_questions(Path(config.questions))
    for question in questions:
        check_text(question.question + (question.reference or ""))
    answers = {
        name: read_answers(name, Path(path), questions) for name, path in config.answers.items()
    }
    plan = plan_judgements(config.mode, questions, answers)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    with only_writer(out / ".lock", out):
        file = out / "transcript.jsonl"
        done = open_transcript(file, _settings(config, plan))
        todo = [judgement for judgement in plan if judgement.key not in done.verdicts]
        _Session(config, endpoint, Transcript(file)).judge(todo, len(plan))
        judged = read_transcript(file)
        single = config.mode == "single"
        summary = {
            "mode": config.mode,
            "judge": config.judge,
            "answered_as": judged.models,
            "tokens": judged.tokens,
            "questions": len(questions),
            **(
                summarize_scores(questions, answers, judged.verdicts, config.scale, config.seed)
                if single
                else summarize_pairs(questions, answers, judged.verdicts, config.seed)
            ),
            "failed": [
                {"question": j.key[0], "names": j.names, "problem": judged.problems[j.key]}
                for j in plan
                if j.key not in judged.verdicts
            ],
        }
        write_json(out / "summary.json", summary)
    return summary


def plan_judgements(
    mode: str, questions: Sequence[OpenQuestion], answers: Mapping[str, Mapping[str, str]]
) -> list[Judgement]:
    """All that is to be asked: every answer, or every pair of answers in both orders."""
    names = [(name,) for name in answers]
    if mode == "pairwise":
        names = [order for a, b in combinations(answers, 2) for order in ((a, b), (b, a))]
    return [
        Judgement(question, shown, tuple(answers[name][question.id] for name in shown))
        for question in questions
        for shown in names
    ]


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """One request and what came of it.

    Attributes:
        wait_seconds: what the endpoint asks to be given.
        fatal: no other request would fare better.
    """

    outcome: str
    verdict: dict[str, Any] | None
    problem: str | None
    prompt: str
    reply: Reply | None
    seconds: float
    wait_seconds: float
    fatal: ValueError | None

    def line(self) -> dict[str, Any]:
        """As the transcript tells it."""
        said = Reply(None, None, None, None) if self.reply is None else self.reply
        return {
            "outcome": self.outcome,
            "verdict": self.verdict,
            "problem": self.problem,
            "model": said.model,
            "tokens": said.tokens,
            "finished": said.finished,
            "seconds": self.seconds,
            "prompt": self.prompt,
            "reply": said.text,
        }


@dataclass(frozen=True)
class _Session:
    """Asks for verdicts in threads until all are there, or one finds that none will come."""

    config: JudgeConfig
    endpoint: Endpoint
    transcript: Transcript
    stop: threading.Event = field(default_factory=threading.Event)

    def judge(self, todo: Sequence[Judgement], total: int) -> None:
        """Judge everything; stops at the first error that no other request would escape."""
        with (
            tqdm(total=total, initial=total - len(todo), unit="verdict") as bar,
            ThreadPoolExecutor(self.config.workers) as pool,
        ):
            futures = [pool.submit(self._judge_one, judgement) for judgement in todo]
            failed = 0
            try:
                for future in as_completed(futures):
                    failed += not future.result()
                    bar.update()
                    if failed:
                        bar.set_postfix(failed=failed)
            finally:  # of an error or Ctrl-C: requests under way are waited for, and written
                self.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _judge_one(self, judgement: Judgement) -> bool:
        """Ask until there is a verdict or no attempt is left; returns whether there is one."""
        first = prompt = build_prompt(judgement, self.config.scale)
        for attempt in range(1, self.config.attempts + 1):
            if self.stop.is_set():
                break
            tried = self._attempt(prompt, last=attempt == self.config.attempts)
            line = {"question": judgement.key[0], "names": judgement.names, "attempt": attempt}
            self.transcript.append(line | tried.line())
            if tried.fatal is not None:
                self.stop.set()  # here and not by who waits for it: the next request is at hand
                raise tried.fatal
            if tried.outcome != AGAIN:
                return tried.outcome == VERDICT
            if tried.reply is not None:
                prompt = correct_prompt(first, tried.problem or "")
            pause = max(self.config.backoff_seconds * 2 ** (attempt - 1), tried.wait_seconds)
            self.stop.wait(min(LONGEST_PAUSE, pause))
        return False

    def _attempt(self, prompt: str, *, last: bool) -> _Attempt:
        """One request, whatever comes of it."""
        started = time.monotonic()
        reply = verdict = problem = fatal = None
        again, wait = not last, 0.0
        try:
            reply = ask(self.endpoint, prompt)
            verdict = self._read(reply)
        except Malformed as error:
            problem = str(error)
        except Unanswered as error:
            problem, again, wait = str(error), error.again and not last, error.wait_seconds or 0.0
        except ValueError as error:
            problem, fatal, again = str(error), error, False
        return _Attempt(
            outcome=VERDICT if verdict is not None else AGAIN if again else FAILED,
            verdict=verdict,
            problem=problem,
            prompt=prompt,
            reply=reply,
            seconds=round(time.monotonic() - started, 3),
            wait_seconds=wait,
            fatal=fatal,
        )

    def _read(self, reply: Reply) -> dict[str, Any]:
        """The verdict in a reply; Malformed if there is none."""
        if reply.text is None:
            raise Malformed("it has no text")
        single = self.config.mode == "single"
        try:
            return (
                parse_scores(reply.text, self.config.scale) if single else parse_choices(reply.text)
            )
        except Malformed as error:
            if reply.finished == "length":
                raise Malformed(f"{error} (it was cut off at max_tokens)") from None
            raise


def _settings(config: JudgeConfig, plan: Sequence[Judgement]) -> dict[str, Any]:
    """What decides the verdicts."""
    prompts = [[judgement.key, build_prompt(judgement, config.scale)] for judgement in plan]
    return {
        "mode": config.mode,
        "scale": config.scale if config.mode == "single" else None,
        "endpoint": config.endpoint.rstrip("/"),
        "judge": config.judge,
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        "body": config.body,
        "names": list(config.answers),
        "prompts": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
    }
