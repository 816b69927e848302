"""Memory of a merge, in a process of its own."""

from pathlib import Path

import pytest

from model.lora.layer import LoraConfig
from tests.helpers.toy import run_without_hook
from tests.unit.model.test_lora import adapted, save
from tests.unit.tools.merging.test_export import base_folder, export


def anonymous_peak(base, adapter, out):
    """MiB of memory that the merge has added, mapped pages not counted."""

    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

    import threading

    peak, done = [resident()], threading.Event()

    def watch():
        while not done.wait(0.002):
            peak.append(resident())

    export(folder=adapter, base=base, out=out + "-0", max_shard_gib=0.003)  # what libraries keep
    before = resident()
    thread = threading.Thread(target=watch)
    thread.start()
    export(folder=adapter, base=base, out=out, max_shard_gib=0.03)
    done.set()
    thread.join()
    print(max(peak) - before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_a_merge_holds_about_two_shards(sample, tmp_path):
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8}
    base = base_folder(sample, tmp_path / "base", **shape)
    lora = LoraConfig(rank=4, alpha=8.0)
    adapter = save(adapted(base, lora), tmp_path / "adapter", base)
    total = sum(path.stat().st_size for path in base.glob("*.safetensors")) / 2**20
    arguments = (str(base), str(adapter), str(tmp_path / "out"))
    added = float(run_without_hook(anonymous_peak, *arguments))
    print(f"{total:.0f} MiB merged within {added:.0f} MiB")
    # About twice a shard of 31 MiB: what is collected, and what safetensors makes of it.
    assert added < 3 * 31 < total
