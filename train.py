"""Train a language model through the stages of a curriculum.

    torchrun [--nproc-per-node N] train.py +experiment=tspt_stage1 [override ...]
    python train.py -m +experiment=tspt_stage1 seed=0,1,2

`train` is the whole run and reads top to bottom; `train_step` is one update. What they call lives
in data/ (rows), model/ (the network) and training/ (everything around an update).
"""

import conf.interrupt  # noqa: F401 answers Ctrl-C while the rest is imported

# isort: split
import itertools
import json
import math
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import torch
from omegaconf import DictConfig

from conf.build import Parts, assemble
from conf.command import command
from conf.description import describe_run, describe_start
from conf.schema import (
    Config,
    check_same_run,
    load,
    register,
    to_yaml,
    under_former_name,
)
from data.rows.loader import Batch, Loader
from data.rows.seeds import derive
from evaluation.multiple_choice.answer import accuracies
from evaluation.multiple_choice.in_training import describe_scores
from model.documents import Documents, copy_to
from model.lora import seed_dropout
from model.transformer import Mistral
from pretrained.folder import FINAL_FOLDERS, Folder
from storage.atomic import replace_text
from training.checkpoint.checkpointer import Checkpointer
from training.checkpoint.export import chat_files, chat_settings, export
from training.clip import clip_gradients
from training.distributed import World, fixed_order, start_world
from training.evaluate import evaluate
from training.freeze import freeze, frozen_rows_held, zero_frozen_gradients
from training.optim import build_optimizer, set_learning_rates
from training.parallelize import materialize, sum_over_replicas
from training.profiler import profiler
from training.run.folder import describe_environment, open_run_folder, record_start
from training.run.forgetting import log_evaluation
from training.run.log import describe_gaps, describe_stop
from training.run.metrics import Meter, MetricsLog, measure_peak_flops
from training.run.plots import plot_forgetting, plot_run
from training.run.resume import check_resume, check_same_state
from training.run.started_from import keep
from training.schedule import learning_rate
from training.step import StepResult, loss_by_row, sum_by_source


def train(config: Config) -> None:
    """Carry out one run, or continue it."""
    with ExitStack() as stack:
        # 1. Processes and devices.
        world = stack.enter_context(start_world(config.device))
        stack.enter_context(fixed_order(config.parallel.deterministic))
        world.check_agreement("the resolved configuration", to_yaml(config))
        config = replace(config, name=world.from_main(under_former_name(config).name))
        run, batch = config.folder, config.batch

        # 2. Data and network; what can be refused is refused here, before anything is written.
        parts = assemble(config, world, continues=True)
        config, plan, model = parts.config, parts.plan, parts.model

        # 3. Run folder: nothing is written unless this is the same run, or a new one; then what is
        #    in force is written down before the first step.
        checkpointer = Checkpointer(run / "checkpoints", config.checkpoint, world)
        stack.enter_context(checkpointer)
        saved = checkpointer.steps()
        fresh = describe_start(world, parts, 0)
        world.on_main(lambda: check_same_run(run / "config.yaml", config))
        world.on_main(lambda: check_same_state(run, saved, parts.fingerprints, fresh["dtype"]))
        if world.from_main(any((run / final).exists() for final in FINAL_FOLDERS)):
            world.say(f"{run} is finished; remove it or set another name to train again")
            return
        world.on_main(lambda: check_resume(config.resume, run, saved))
        # Before anything is written: weights that are not finite are refused where they are read.
        materialize(model, parts.weights, world.device)
        stack.enter_context(open_run_folder(run, world))
        saves, size = -(-plan.steps // config.checkpoint.every), config.optim.moment_bytes
        checkpointer.check_space(model, saves, moment_bytes=size)
        if world.is_main:
            replace_text(run / "config.yaml", to_yaml(config))
            environment = describe_environment(world, parts.fingerprints)
            replace_text(run / "environment.json", json.dumps(environment, indent=2) + "\n")
            if isinstance(parts.initial, Folder):
                keep(run, parts.initial.folder)
        log = MetricsLog(
            run, config.logging, active=world.is_main, steps=plan.steps, settings=asdict(config)
        )
        stack.callback(log.close)

        # 4. State: optimizer and step, fresh or all of it from the newest checkpoint.
        optimizer = build_optimizer(model, config.optim)
        step = checkpointer.load_latest(model, optimizer)
        log.rewind(step)
        # Only now: what stands in the log after that step is of this start.
        world.on_main(lambda: record_start(run, fresh | {"step": step or 0}))
        for gap in describe_gaps(run, step, config.logging.every) if world.is_main else []:
            log.say(gap)

        # 5. The loop; `step` counts completed updates.
        loader = stack.enter_context(
            Loader(
                plan,
                parts.sources,
                micro_batch_rows=batch.micro_batch_rows,
                rank=world.rank,
                world_size=world.size,
                seed=config.seed,
                prefetch=batch.prefetch,
            )
        )
        peak_flops = (config.logging.peak_tflops or 0.0) * 1e12
        peak_flops = peak_flops or measure_peak_flops(world.device, parts.dtype)
        customary = model.config.customary_training_flops(1, batch.row_length)
        meter = Meter(peak_flops * world.size, customary)
        for line in describe_run(world, parts, peak_flops, step):
            log.say(line)
        next_row = (step or 0) * batch.rows_per_step
        if next_row < plan.rows:
            text = parts.tokenizer.decode(loader.row(next_row).tokens.tolist())
            log.say(f"row {next_row} begins: {text[:200]!r}")

        def evaluate_and_log(stage: str) -> None:
            results = evaluate(
                model,
                parts.held_out,
                row_length=batch.row_length,
                micro_batch_rows=batch.micro_batch_rows,
                world=world,
            )
            if world.is_main:
                log_evaluation(log, run / "metrics.jsonl", step or 0, stage, results)

        def ask_and_log(stage: str) -> None:
            options = {"batch_tokens": config.tasks.batch_tokens}
            scores = accuracies(parts.tasks, model, config.tasks, world, **options)
            log.write({"step": step, "stage": stage, "tasks": scores})
            log.say(f"step {step}: {describe_scores(scores)}")

        def save_export(target: Path) -> None:
            dtype = config.checkpoint.export_dtype
            trained_on = [parts.sources[name] for name in plan.sources]
            export(
                model,
                target,
                parts.tokenizer,
                dtype,
                world,
                base=parts.base,
                settings=chat_settings(parts.settings, trained_on, parts.tokenizer),
                files=chat_files(trained_on, parts.tokenizer),
            )

        trace = stack.enter_context(profiler(run, config.logging.profile, world))
        if step is None:
            step = 0
            evaluate_and_log(plan.stages[0].name)
            if parts.tasks:
                ask_and_log(plan.stages[0].name)
        while step < plan.steps:
            started = time.perf_counter()
            stage = plan.stage_at(step)
            lr = begin_step(step, parts, optimizer)
            result = train_step(model, optimizer, loader.step(step), config, world)
            step += 1
            last = step == plan.steps
            meter.add(batch.tokens_per_step, result.flops, time.perf_counter() - started)
            if due(step, config.logging.every, last):
                row = {
                    "step": step,
                    "stage": stage.name,
                    "tokens": step * batch.tokens_per_step,
                    "loss_nats": result.loss_nats,
                    "lr": lr,
                    "grad_norm": result.grad_norm,
                    **meter.read(),
                    "sources": result.sources,
                }
                if config.logging.row_losses:
                    row["rows"] = sorted(itertools.chain(*world.gather(result.rows)))
                log.write(row)
                log.progress(row)
            if due(step, config.evaluation.every, last):
                evaluate_and_log(stage.name)
            if parts.tasks and due(step, config.tasks.every, last):
                ask_and_log(stage.name)
            if due(step, config.checkpoint.export_every, last=False):
                save_export(run / "exports" / f"step-{step:08d}")
            # Last: what a checkpoint stands for is logged and exported when it appears.
            if due(step, config.checkpoint.every, last):
                log.make_durable()
                checkpointer.save(step, model, optimizer)
            trace()

        checkpointer.wait()
        log.say(checkpointer.summary())

        # 6. What remains: curves, and a folder that the HF ecosystem opens: a model or an adapter.
        if world.is_main:
            plot_run(run / "metrics.jsonl", run / "loss.png")
            plot_forgetting(run / "metrics.jsonl", run / "forgetting.png")
        save_export(run / ("model" if config.lora is None else "adapter"))
        log.say(f"done: {run}")


def begin_step(step: int, parts: Parts, optimizer: torch.optim.Optimizer) -> float:
    """Put in force what the stage of a step asks for; returns the learning rate.

    What it trains, each group's rate, and, where the stage starts, whether moments are forgotten.
    """
    stage = parts.plan.stage_at(step)
    if step == stage.first_step and stage.config.moments == "reset":
        optimizer.state.clear()
    freeze(parts.model, optimizer, stage.config.trains)
    lr = learning_rate(step, parts.spans, parts.config.schedule)
    set_learning_rates(optimizer, lr, stage.config.lr_multipliers)
    return lr


def train_step(
    model: Mistral,
    optimizer: torch.optim.Optimizer,
    batches: list[Batch],
    config: Config,
    world: World,
) -> StepResult:
    """Update the weights once with the rows of all ranks.

    The gradient is that of the summed loss over the number of supervised tokens of the whole step,
    so it does not depend on how rows are split over micro-batches and ranks.

    Raises:
        FloatingPointError: the gradient is not finite; the weights are left as they were.
    """
    (supervised,) = world.sum([sum(batch.supervised_tokens for batch in batches)])
    if supervised == 0:
        raise ValueError("a step without a supervised token; make batch.tokens_per_step larger")
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
        # FSDP averages gradients over ranks; the factor turns that into the sum.
        (losses.total * (world.size / supervised)).backward()
        row_losses.append(losses.rows)
    seed_dropout(model, None)
    zero_frozen_gradients(optimizer)
    grad_norm = clip_gradients(model.parameters(), config.optim.clip_norm)
    if not math.isfinite(grad_norm):
        rows = sorted(row for batch in batches for row in batch.rows if row >= 0)
        raise FloatingPointError(f"gradient norm {grad_norm} at rows {rows}; nothing was updated")
    with frozen_rows_held(optimizer):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)

    by_source, (all_pairs,) = (
        sum_by_source(config.data.sources, batches, row_losses, world),
        world.sum([pairs]),
    )
    return StepResult(
        loss_nats=sum(nats for nats, _ in by_source.values()) / supervised,
        grad_norm=grad_norm,
        flops=model.config.training_flops(
            config.batch.tokens_per_step,
            int(all_pairs),
            frozen_layers=not model.model.norm.weight.requires_grad,
            frozen_head=not model.lm_head.weight.requires_grad,
        ),
        sources={
            name: {"loss_nats": nats / tokens, "tokens": int(tokens)}
            for name, (nats, tokens) in by_source.items()
        },
        rows=[
            pair
            for batch, nats in zip(batches, row_losses, strict=True)
            for pair in loss_by_row(batch, nats)
        ],
    )


def due(step: int, every: int | None, last: bool) -> bool:
    """Whether something that happens every so many steps, and after the last, happens now."""
    return every is not None and (last or step % every == 0)


@command("train")
def main(composed: DictConfig) -> None:
    """Compose the configuration and train."""
    config = load(composed)
    try:
        train(config)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(describe_stop(config.folder)) from None


if __name__ == "__main__":
    register()
    main()
