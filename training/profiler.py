"""A trace of a few steps, for chrome://tracing or Perfetto."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.profiler

from training.distributed import World


@contextmanager
def profiler(folder: Path, enabled: bool, world: World) -> Iterator[Callable[[], None]]:
    """Yield what the loop calls after each step; steps 3 to 5 end in profile/rank-N.json."""
    if not enabled:
        yield lambda: None
        return
    target = folder / "profile" / f"rank-{world.rank}.json"
    target.parent.mkdir(exist_ok=True)
    with torch.profiler.profile(
        schedule=torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1),
        on_trace_ready=lambda trace: trace.export_chrome_trace(str(target)),
    ) as trace:
        yield trace.step
