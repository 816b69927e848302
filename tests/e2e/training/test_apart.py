"""A run whose sources overlap is refused before anything is written."""

import json
import shutil

import pytest

from tests.helpers.runs import configure, tiny
from train import train


def test_a_run_is_refused_before_anything_is_written(sample, tmp_path):
    root = shutil.copytree(sample, tmp_path / "sample")
    manifest = json.loads((root / "geo_en" / "manifest.json").read_text())
    (root / "geo_en" / "manifest.json").write_text(json.dumps(manifest | {"avoid": []}))
    options = ["+experiment=tspt", *tiny(root, tmp_path / "runs"), "data.sample_scale=null"]
    with pytest.raises(ValueError, match=r"geo_en with .*general_en, .*scripts\.check_sources"):
        train(configure(*options))
    assert not (tmp_path / "runs").exists()
