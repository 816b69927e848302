"""The generated reference pages are current."""

from experiments.checks.reference import commands, pages


def test_the_committed_pages_are_what_the_script_writes():
    """Remedy: python -m experiments.checks.reference."""
    for path, text in pages().items():
        assert path.read_text(encoding="utf-8") == text, path.name


def test_every_command_and_every_field_has_its_place():
    texts = {path.name: text for path, text in pages().items()}
    assert all(f"\n## {name}\n" in texts["commands.md"] for name in commands())
    for field in ("optim.lr", "curriculum.stages.<stage>.replay.share", "lora.rank", "seed"):
        assert f"\n| `{field}` |" in texts["configuration.md"]
