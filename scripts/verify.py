"""Verify a run: repeat random steps of it and compare them with its log.

    [torchrun --nproc-per-node N] -m scripts.verify run=runs/<name> [steps=10] [reach=50]

The command starts from the initial weights and from every checkpoint, writes nothing to the run
folder, and can run during the training. Evaluations on the way are repeated too, times are not
compared. The exit code is 1 if a figure is not reproduced.
"""

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from conf.build import build_run
from conf.command import command
from conf.description import describe_start
from conf.schema import load_run
from tools.verification.replay import (
    VerifyConfig,
    check_source_files,
    describe_reach,
    describe_replays,
    draw_replays,
    repeat,
    with_tolerances,
)
from tools.verification.verdict import Verdict
from train import train_step
from training.checkpoint.checkpointer import Checkpointer
from training.checkpoint.manifest import finished
from training.distributed import start_world
from training.optim import build_optimizer
from training.parallelize import materialize
from training.run.folder import describe_environment
from training.run.log import check_log, read_records
from training.run.resume import check_same_data
from training.step import begin_step


def verify(asked: VerifyConfig) -> Verdict:
    """Check data and checkpoints, print the steps to repeat, repeat them, compare."""
    run = load_run(asked.run)
    run = replace(run, device=asked.device or run.device)
    with ExitStack() as stack:
        world = stack.enter_context(start_world(run.device))
        world.check_agreement("the command line", repr(asked))
        # The run may be writing: a step is in the log before its checkpoint is complete.
        kept = world.from_main([step for step, _ in finished(run.folder / "checkpoints")])
        records = world.from_main(read_records(run.folder))
        parts = build_run(run, world)
        run, plan, model, batch = parts.config, parts.plan, parts.model, run.batch
        check_same_data(run.folder / "environment.json", parts.fingerprints)
        files = check_source_files(parts.sources, world)
        world.print(f"data: {files} files, byte for byte what {run.folder} started with")

        saved = stack.enter_context(Checkpointer(run.folder / "checkpoints", run.checkpoint, world))
        damage = {step: saved.damage(step) for step in saved.steps()}
        states = [0, *(step for step in damage if damage[step] is None)]
        logged = {step: row for step, row in records.logged.items() if 1 <= step <= plan.steps}
        now = describe_start(parts, world)
        drawn = draw_replays(asked, states, list(logged))
        replays, tolerances = with_tolerances(drawn, asked.tolerance, records.starts, now)
        then, here = records.environment, describe_environment(world, parts.fingerprints)
        world.print(f"code: commit {then['git_commit']} in the run, {here['git_commit']} here")
        world.print("\n".join(tolerances))
        world.print(describe_reach(states, logged, asked.reach))
        world.print("\n".join(describe_replays(replays, records, batch.tokens_per_step)))

        materialize(model, parts.weights, world.device)
        optimizer = build_optimizer(model, run.optim)
        loader = stack.enter_context(parts.loader)

        def execute(step: int) -> dict[str, Any]:
            lr = begin_step(step, plan, model, optimizer, parts.spans, run.schedule)
            result = train_step(model, optimizer, loader.step(step), run, world)
            return {
                "stage": plan.stage_at(step).name,
                "tokens": (step + 1) * batch.tokens_per_step,
                "loss_nats": result.loss_nats,
                "lr": lr,
                "grad_norm": result.grad_norm,
                "sources": result.sources,
                "rows": result.gather_rows(world),
            }

        def evaluate_after(step: int) -> dict[str, Any]:
            results = parts.held_out.evaluate(model, world)
            return {"stage": plan.stage_at(max(step - 1, 0)).name, "eval": results}

        verdict = repeat(replays, execute, evaluate_after, records, saved, model, optimizer)
        verdict.problems += check_log(records, kept, plan.steps, run.logging.every)
        still = saved.steps()  # a checkpoint that the run pruned meanwhile is not damaged
        verdict.problems += [
            f"checkpoint of step {step}: {problem}"
            for step, problem in damage.items()
            if problem and step in still
        ]
        world.print(str(verdict))
        return verdict


@command("verify", VerifyConfig)
def main(config: VerifyConfig) -> None:
    """Verify one run."""
    if not verify(config).passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
