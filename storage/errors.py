"""Sentences about files for error messages."""

from pathlib import Path


def system_error(error: OSError) -> str:
    """File and reason of an error of the operating system."""
    places = [str(name) for name in (error.filename, error.filename2) if name is not None]
    reason = error.strerror or str(error) or type(error).__name__
    return f"{' -> '.join(places)}: {reason}" if places else reason


def why_no_file(path: Path) -> str:
    """Reason why a path cannot be read as a file, for a message that names the path."""
    return "this is a folder, not a file" if path.is_dir() else "no such file"
