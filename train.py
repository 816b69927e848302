"""Train a language model through the stages of a curriculum.

    torchrun [--nproc-per-node N] train.py +experiment=tspt_stage1 [override ...]
    python train.py -m +experiment=tspt_stage1 seed=0,1,2

`train` is the whole run, in order; `train_step` is one update. The functions that they call are in
data/ (rows), model/ (the network) and training/ (everything around an update).
"""

import conf.interrupt  # noqa: F401 answers Ctrl-C while the rest is imported

# isort: split
import math
import time
from contextlib import ExitStack
from pathlib import Path

from torch.optim import Optimizer

from conf.build import RunParts, build_run
from conf.command import command
from conf.description import describe_run
from conf.schema import Config
from data.rows.loader import Batch
from data.rows.seeds import derive
from model.adapters import seed_dropout
from model.documents import Documents, copy_to
from model.transformer import Mistral
from training.checkpoint.checkpointer import Checkpointer
from training.checkpoint.export import export
from training.distributed import World, deterministic_algorithms, start_world
from training.freeze import frozen_rows_held, zero_frozen_gradients
from training.optim import build_optimizer, clip_gradients
from training.parallelize import materialize, sum_over_replicas
from training.run.metrics import Meter
from training.run.open import describe_stop, open_run
from training.step import StepResult, begin_step, profiler, step_result


def train(config: Config) -> None:
    """Carry out a run, or resume it from its newest checkpoint."""
    with ExitStack() as stack:
        # 1. World: processes and devices.
        world = stack.enter_context(start_world(config.device))
        stack.enter_context(deterministic_algorithms(config.parallel.deterministic))

        # 2. Parts: data and network. Bad input is refused here, before anything is written.
        parts = build_run(config, world, resumes=True)
        config, plan, model = parts.config, parts.plan, parts.model
        batch, every = config.batch, config.checkpoint.every
        checkpointer = Checkpointer(config.folder / "checkpoints", config.checkpoint, world)
        stack.enter_context(checkpointer)

        # 3. Run: its folder is compared with this configuration, then locked.
        run = stack.enter_context(open_run(describe_run(parts, world), world, checkpointer.steps()))
        if run.finished:
            world.print(f"{run.folder} is finished; remove it or set another name to train again")
            return
        # Weights that are not finite are refused here, before the folder is changed.
        materialize(model, parts.weights, world.device)
        optimizer = build_optimizer(model, config.optim)
        run.lock()
        checkpointer.check_space(model, optimizer, plan.steps)

        # 4. State: initial, or all of it from the newest checkpoint.
        resumed = checkpointer.load_latest(model, optimizer)
        meter = Meter.for_run(config.logging, model.config, batch.row_length, parts.dtype, world)
        run.start(resumed)
        loader = stack.enter_context(parts.loader)
        profile_step = stack.enter_context(profiler(run.folder, config.logging.profile, world.rank))

        # 5. Loop: `step` counts completed updates.
        step = resumed or 0
        if step < plan.steps:
            row = step * batch.rows_per_step
            text = parts.tokenizer.decode(loader.row(row).tokens.tolist())
            run.log.say(f"row {row} begins: {text[:200]!r}")
        if resumed is None:
            run.log.evaluation(0, plan.stages[0].name, parts.held_out.evaluate(model, world))
            if parts.tasks:
                run.log.tasks(0, plan.stages[0].name, parts.tasks.ask(model, world))
        while step < plan.steps:
            started = time.perf_counter()
            stage = plan.stage_at(step).name
            lr = begin_step(step, plan, model, optimizer, parts.spans, config.schedule)
            result = train_step(model, optimizer, loader.step(step), config, world)
            step += 1
            last = step == plan.steps
            meter.add(batch.tokens_per_step, result.flops, time.perf_counter() - started)
            if due(step, config.logging.every, last):
                rows = result.gather_rows(world) if config.logging.row_losses else None
                tokens = step * batch.tokens_per_step
                run.log.step(step, stage, tokens, lr, result, meter.read(), rows)
            if due(step, config.evaluation.every, last):
                run.log.evaluation(step, stage, parts.held_out.evaluate(model, world))
            if parts.tasks and due(step, config.tasks.every, last):
                run.log.tasks(step, stage, parts.tasks.ask(model, world))
            if due(step, config.checkpoint.export_every, last=False):
                save_export(run.folder / "exports" / f"step-{step:08d}", parts, world)
            # Save last: a checkpoint of step n implies the log and the export of step n.
            if due(step, every, last):
                run.log.fsync()
                checkpointer.save(step, model, optimizer)
            profile_step()

        # 6. Finish: plots, and the trained model or adapter as a folder in HF format.
        checkpointer.wait()
        run.log.say(checkpointer.summary())
        run.finish()
        save_export(run.folder / ("model" if config.lora is None else "adapter"), parts, world)
        run.log.say(f"done: {run.folder}")


def train_step(
    model: Mistral, optimizer: Optimizer, batches: list[Batch], config: Config, world: World
) -> StepResult:
    """Update the weights once with the rows of all ranks.

    The loss is the sum over all supervised tokens of the step, divided by their number over all
    ranks. The gradient therefore does not depend on the split into micro-batches and ranks.

    Raises:
        ValueError: no token of the step is supervised.
        FloatingPointError: the gradient is not finite; the weights are unchanged.
    """
    (supervised,) = world.sum([sum(batch.supervised_tokens for batch in batches)])
    if supervised == 0:
        raise ValueError("a step has no supervised token; increase batch.tokens_per_step")
    pairs, row_losses = 0, []
    for number, batch in enumerate(batches, start=1):
        sum_over_replicas(model, now=number == len(batches))
        seed_dropout(model, [derive(config.seed, "dropout", row) for row in batch.rows])
        documents = Documents.from_segments(batch.segments)
        pairs += documents.count_pairs(model.config.sliding_window)
        losses = model(
            copy_to(world.device, batch.tokens),
            documents=documents.to(world.device),
            labels=copy_to(world.device, batch.labels),
            supervised=batch.supervised_tokens,
        )
        # FSDP averages gradients over ranks; the factor `dp_size` turns the mean into the sum.
        (losses.total * (world.dp_size / supervised)).backward()
        row_losses.append(losses.rows)
    seed_dropout(model, None)  # dropout off again
    zero_frozen_gradients(optimizer)
    grad_norm = clip_gradients(model.parameters(), config.optim.clip_norm)
    if not math.isfinite(grad_norm):
        rows = sorted(row for batch in batches for row in batch.rows if row >= 0)
        raise FloatingPointError(f"gradient norm {grad_norm} at rows {rows}; nothing was updated")
    with frozen_rows_held(optimizer):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return step_result(
        model,
        batches,
        row_losses,
        sources=config.data.sources,
        grad_norm=grad_norm,
        supervised=supervised,
        tokens=config.batch.tokens_per_step,
        pairs=pairs,
        world=world,
    )


def due(step: int, every: int | None, last: bool) -> bool:
    """Decide if an action of every `every` steps (None: never), and of the last step, is due."""
    return every is not None and (last or step % every == 0)


def save_export(target: Path, parts: RunParts, world: World) -> None:
    """Write the present weights as a model folder in HF format, or as an adapter in PEFT format."""
    export(
        parts.model,
        target,
        parts.tokenizer,
        parts.config.checkpoint.export_dtype,
        world,
        base=parts.initial.base,
        settings=parts.initial.settings,
        sources=[parts.sources[name] for name in parts.plan.sources],
    )


@command("train", Config, stopped=lambda config: describe_stop(config.folder))
def main(config: Config) -> None:
    """Train as configured."""
    train(config)


if __name__ == "__main__":
    main()
