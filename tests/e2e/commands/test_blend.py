"""A blend that is killed while it is written."""

import signal

from tests.helpers.kills import kill_at_call
from tests.helpers.ranks import start_ranks, wait_for_all
from tests.unit.tools.merging.test_blend import heads
from tests.unit.tools.merging.test_export import export


def export_until_killed(options):
    kill_at_call("pretrained.safetensors_folder:save_file", 3)
    export(**options)


def test_a_kill_while_the_blend_is_written_leaves_no_folder(sample, tmp_path):
    base, tuned = heads(sample, tmp_path, (0.1, 1.0))
    out = tmp_path / "out"
    options = {"folder": str(tuned), "blend": str(base), "blend_weight": 0.5, "out": str(out)}
    (process,) = start_ranks(export_until_killed, 1, options | {"max_shard_gib": 0.0001})
    wait_for_all([process])
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    export(**options)
    assert {path.name for path in tmp_path.iterdir()} == {"head0", "head1", "out"}
    assert "blend.json" in {path.name for path in out.iterdir()}
