"""Tasks of lm-evaluation-harness, answered by this project's scoring and generation.

The harness asks for log-likelihoods of endings after contexts; they are computed as for our own
benchmarks: in the ids of the whole text, with one pass over a context that several endings share.
Needs the extra `harness`. Source: lm-eval 0.4.13, `lm_eval.api.model.LM`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
from lm_eval.utils import (  # pyright: ignore[reportMissingImports]
    get_rolling_token_windows,
    make_table,
)

from evaluation.multiple_choice.config import RESULTS, EvaluateConfig
from evaluation.multiple_choice.encode import encode_prompts
from evaluation.multiple_choice.prompts import Prompt
from evaluation.scoring.loglikelihood import score
from evaluation.scoring.requests import Request, Scored
from inference.generation.engine import Engine
from inference.generation.generate import context_limit, generate
from inference.generation.sampling import SamplingConfig
from model.transformer import Mistral
from pretrained.load import model_digest
from storage.atomic import write_json
from tokenizer.tokenizer import Tokenizer
from training.distributed import World

MAX_NEW_TOKENS = 256
"""Longest generated answer of a task that does not set `max_gen_toks`."""


class ModelAdapter(LM):
    """A network as lm-evaluation-harness calls it; all processes receive all requests."""

    def __init__(
        self, model: Mistral, tokenizer: Tokenizer, world: World, batch_tokens: int
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.world, self.batch_tokens = world, batch_tokens

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each ending after its context, and if it is the greedy one."""
        groups: dict[str, list[int]] = {}
        for n, request in enumerate(requests):
            groups.setdefault(request.args[0], []).append(n)
        prompts = []
        for context, members in groups.items():
            endings = tuple(requests[n].args[1] for n in members)
            place = f"{requests[members[0]].task_name}: {context[-40:]!r}"
            prompts.append(Prompt("", context, "", endings, 0, place))
        encoded = encode_prompts(prompts, self.tokenizer)
        scores = self._score([request for request, _ in encoded])
        found = {
            n: (-nats, greedy)
            for members, scored in zip(groups.values(), scores, strict=True)
            for n, nats, greedy in zip(members, scored.endings, scored.greedy, strict=True)
        }
        return [found[n] for n in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log-likelihood in nats of each text after BOS, in windows of the model's context."""
        windows, owners = [], []
        for n, request in enumerate(requests):
            ids = self.tokenizer.encode(request.args[0])
            limit = context_limit(self.model.config)
            longest = max(1, len(ids) if limit is None else limit - 1)
            pairs = get_rolling_token_windows(ids, self.tokenizer.bos_id, longest, 1)
            for seen, predicted in pairs:
                context = (*seen, predicted[-1])[: -len(predicted)]
                windows.append(Request((), context, (tuple(predicted),)))
                owners.append(n)
        totals = [0.0] * len(requests)
        for owner, scored in zip(owners, self._score(windows), strict=True):
            totals[owner] -= scored.endings[0]
        return totals

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Greedy answers, each up to one of its stop texts; ValueError if a task samples."""
        engine, answers = Engine(self.model), []
        for request in requests:
            context, options = request.args
            if options.get("do_sample"):
                raise ValueError(
                    f"{request.task_name}: do_sample=true is not supported here; leave the task out"
                )
            stop = options.get("until") or []
            sampling = SamplingConfig(
                max_new_tokens=options.get("max_gen_toks", MAX_NEW_TOKENS),
                temperature=0.0,
                stop=[stop] if isinstance(stop, str) else list(stop),
            )
            (answer,) = generate(
                engine,
                [[self.tokenizer.bos_id, *self.tokenizer.encode(context)]],
                sampling,
                eos_ids=[self.tokenizer.eos_id],
                decode=self.tokenizer.decode,
                continue_text=True,
            )
            answers.append(answer.text)
        return answers

    def _score(self, requests: list[Request]) -> list[Scored]:
        mine = score(
            self.model, requests, batch_tokens=self.batch_tokens, context=False, world=self.world
        )
        found: dict[int, Scored] = {}
        for part in self.world.gather(dict(mine)):
            found |= part
        return [found[n] for n in range(len(requests))]


def run_lm_eval(config: EvaluateConfig, model: Mistral, tokenizer: Tokenizer, world: World) -> str:
    """Answer the tasks of the harness and write `lm_eval.json`; all processes call it.

    Returns:
        The harness's table of results.
    """
    results = simple_evaluate(
        ModelAdapter(model, tokenizer, world, config.batch_tokens),
        tasks=config.lm_eval_tasks,
        num_fewshot=config.shots,
        limit=config.limit,
        log_samples=False,
    )
    assert results is not None
    kept = {name: results[name] for name in ("results", "versions", "n-shot", "n-samples")}
    summary = {"model": model_digest(model), "tokenizer": tokenizer.fingerprint, **kept}
    out = Path(config.out)

    def write() -> None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / RESULTS, summary)

    world.run_on_rank0(write)
    return make_table(results)
