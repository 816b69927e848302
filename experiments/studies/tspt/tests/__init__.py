"""Tests of the study's arms and script."""

from pathlib import Path

ARM_FOLDER = Path(__file__).parent.parent / "conf" / "arm"
