"""Judging of answers to open questions by a language model.

In mode `single` an answer gets a score for every criterion. In mode `pairwise` two answers are
judged in both orders, because judges prefer a position: a preference counts if both orders agree,
otherwise the pair is a tie. A reply without a valid verdict is requested again, and after
`attempts` requests the verdict is listed as failed.

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
from evaluation.judge.client import Endpoint, JudgeReply, RequestFailed, ask
from evaluation.judge.config import JudgeConfig
from evaluation.judge.parse import InvalidVerdict, parse_choices, parse_scores
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
"""Upper limit, in seconds, of the pause between two attempts."""


def judge_answers(config: JudgeConfig) -> dict[str, Any]:
    """Request every missing verdict; write and return the content of `summary.json`.

    Raises:
        ValueError: questions or answers cannot be read, `out` belongs to another command, or the
            endpoint refuses every request. Verdicts received before are kept.
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
    """All judgements: every answer, or every pair of answers in both orders."""
    names = [(name,) for name in answers]
    if mode == "pairwise":
        names = [order for a, b in combinations(answers, 2) for order in ((a, b), (b, a))]
    return [
        Judgement(question, shown, tuple(answers[name][question.id] for name in shown))
        for question in questions
        for shown in names
    ]


@dataclass(frozen=True)
class _Session:
    """Requests verdicts in threads until all are received or a fatal error occurs."""

    config: JudgeConfig
    endpoint: Endpoint
    transcript: Transcript
    stop: threading.Event = field(default_factory=threading.Event)

    def judge(self, todo: Sequence[Judgement], total: int) -> None:
        """Process all judgements; stop at the first fatal error."""
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
            finally:  # also after an error or Ctrl-C: open requests finish and are written
                self.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _judge_one(self, judgement: Judgement) -> bool:
        """Request one verdict up to `attempts` times; True if it was received."""
        first = prompt = build_prompt(judgement, self.config.scale)
        for attempt in range(1, self.config.attempts + 1):
            if self.stop.is_set():
                break
            started, reply = time.monotonic(), JudgeReply(None, None, None, None)
            verdict = problem = fatal = None
            again, answered, wait = attempt < self.config.attempts, False, 0.0
            try:
                reply = ask(self.endpoint, prompt)
                answered = True
                verdict = self._read(reply)
            except InvalidVerdict as error:
                problem = str(error)
            except RequestFailed as error:
                problem, again, wait = str(error), error.again and again, error.wait_seconds or 0.0
            except ValueError as error:
                problem, fatal, again = str(error), error, False
            outcome = VERDICT if verdict is not None else AGAIN if again else FAILED
            self.transcript.append(
                {
                    "question": judgement.key[0],
                    "names": judgement.names,
                    "attempt": attempt,
                    "outcome": outcome,
                    "verdict": verdict,
                    "problem": problem,
                    "model": reply.model,
                    "tokens": reply.tokens,
                    "finished": reply.finished,
                    "seconds": round(time.monotonic() - started, 3),
                    "prompt": prompt,
                    "reply": reply.text,
                }
            )
            if fatal is not None:
                self.stop.set()  # at once, before any thread starts its next request
                raise fatal
            if outcome != AGAIN:
                return outcome == VERDICT
            if answered:
                prompt = correct_prompt(first, problem or "")
            pause = max(self.config.backoff_seconds * 2 ** (attempt - 1), wait)
            self.stop.wait(min(LONGEST_PAUSE, pause))
        return False

    def _read(self, reply: JudgeReply) -> dict[str, Any]:
        """Verdict of a reply; InvalidVerdict if it has none."""
        if reply.text is None:
            raise InvalidVerdict("it has no text")
        single = self.config.mode == "single"
        try:
            return (
                parse_scores(reply.text, self.config.scale) if single else parse_choices(reply.text)
            )
        except InvalidVerdict as error:
            if reply.finished == "length":
                raise InvalidVerdict(f"{error} (it was cut off at max_tokens)") from None
            raise


def _settings(config: JudgeConfig, plan: Sequence[Judgement]) -> dict[str, Any]:
    """Settings that decide the verdicts."""
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
