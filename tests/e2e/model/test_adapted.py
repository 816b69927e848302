"""A compiled block with adapted linears computes what the plain block computes."""

import torch

from model.lora import fused
from tests.helpers.toy import (
    run_without_hook,
)
from tests.unit.model.test_adapted import network, results


def check_compiled():
    fused.DEVICES = ("cpu",)
    for targets in (["all"], ["q_proj", "v_proj", "down_proj"]):
        model = network(targets=targets)
        plain = results(model)
        for block in model.model.layers:
            block.compile(fullgraph=True, backend="aot_eager")
        for one, other in zip(plain, results(model), strict=True):
            torch.testing.assert_close(one, other)


def test_a_compiled_block_is_the_same():
    run_without_hook(check_compiled)
