"""The manifest of a prepared source of documents, from its first version to its last append."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from data.rows.shards import FORMAT_VERSION, fingerprint_of, read_manifest
from storage.checksum import sha256_of


@dataclass(frozen=True)
class AppendEntry:
    """One preparation: that of a whole source, or an append.

    Attributes:
        avoid: files of which no document is copied, as `inputs` of the manifest.
        first_input: index of the first entry of `inputs`; the entries before are older.
        first_shard: index of the first shard.
        fingerprint_before: of the source before the append; None for a new source.
    """

    settings: dict[str, Any]
    avoid: list[dict[str, Any]]
    first_input: int = 0
    first_shard: int = 0
    fingerprint_before: str | None = None


@dataclass(kw_only=True)
class Manifest:
    """Content of manifest.json; the fields are its keys, in their order.

    Attributes:
        inputs: path, sha256 and number of documents of each input.
        avoid, settings: of the first preparation; those of appends are in `appends`.
        skipped: number of skipped records by reason.
        other: keys that this version does not know.
    """

    format_version: int = FORMAT_VERSION
    name: str
    dtype: str
    tokenizer: dict[str, Any]
    documents: int = 0
    tokens: int = 0
    utf8_bytes: int = 0
    shards: list[dict[str, Any]] = field(default_factory=list)
    held_out: dict[str, Any]
    inputs: list[dict[str, Any]]
    avoid: list[dict[str, Any]] = field(default_factory=list)
    appends: list[AppendEntry] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Manifest":
        """Read the parsed JSON of a manifest."""
        names = {each.name for each in fields(cls)} - {"appends", "other"}
        return cls(
            **{name: value for name, value in content.items() if name in names},
            appends=[AppendEntry(**entry) for entry in content.get("appends", [])],
            other={name: content[name] for name in content.keys() - names - {"appends"}},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as a value for JSON."""
        content = asdict(self)
        del content["other"]
        return content | self.other

    @property
    def latest(self) -> AppendEntry:
        """The latest preparation."""
        return self.appends[-1] if self.appends else AppendEntry(self.settings, self.avoid)

    @property
    def latest_inputs(self) -> list[dict[str, Any]]:
        """Inputs of the latest preparation."""
        return self.inputs[self.latest.first_input :]

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the files of the latest preparation, by name."""
        latest = self.latest
        return {
            "name": self.name,
            "tokenizer": self.tokenizer["fingerprint"],
            "held_out_fraction": self.held_out["fraction"],
            "append": latest.fingerprint_before,
            **latest.settings,
            **{f"input {entry['path']}": entry["sha256"] for entry in self.latest_inputs},
            **{f"decontaminate_against {entry['path']}": entry["sha256"] for entry in latest.avoid},
        }

    def repeats(self, added: "Manifest") -> bool:
        """Check that the latest preparation is the one that `added` describes."""
        ours, theirs = (
            [(entry["path"], entry["sha256"]) for entry in inputs]
            for inputs in (self.latest_inputs, added.inputs)
        )
        latest = self.latest
        return (latest.settings, latest.avoid, ours) == (added.settings, added.avoid, theirs)


def append_manifest(out: Path, added: Manifest) -> Manifest:
    """Manifest of the source `out` before the first document of an append.

    Args:
        added: manifest that the appended documents would have as a source.

    Raises:
        ValueError: the documents do not fit the source, or an input is in the source already.
    """
    content = read_manifest(out)
    manifest = Manifest.from_json(content)
    _check_same_source(out, manifest, added)
    known = {entry["sha256"] for entry in manifest.inputs}
    for entry in added.inputs:
        if entry["sha256"] in known:
            raise ValueError(f"inputs: {entry['path']!r} is in {out} already; leave it out")
    avoided = {entry["sha256"] for entry in added.avoid}
    for entry in [*manifest.avoid, *(each for work in manifest.appends for each in work.avoid)]:
        if entry["sha256"] not in avoided:
            raise ValueError(
                f"decontaminate_against: {out} was decontaminated against {entry['path']!r} "
                f"(sha256 {entry['sha256'][:12]}); add that file to decontaminate_against"
            )
    manifest.appends.append(
        AppendEntry(
            settings=added.settings,
            avoid=added.avoid,
            first_input=len(manifest.inputs),
            first_shard=len(manifest.shards),
            fingerprint_before=fingerprint_of(content),
        )
    )
    manifest.inputs += added.inputs
    return manifest


def _check_same_source(out: Path, manifest: Manifest, added: Manifest) -> None:
    for name, theirs, ours in (
        ("name", manifest.name, added.name),
        ("tokenizer", manifest.tokenizer["fingerprint"], added.tokenizer["fingerprint"]),
        ("held_out_fraction", manifest.held_out["fraction"], added.held_out["fraction"]),
    ):
        if ours != theirs:
            raise ValueError(
                f"{name}: {ours}, but {out} was prepared with {theirs}; append with {theirs}, or "
                "prepare another source"
            )
    if sha256_of(out / "held_out.jsonl") != manifest.held_out["sha256"]:
        raise ValueError(
            f"out: {out}/held_out.jsonl has changed since it was prepared; restore it, because "
            "appended documents must not copy it"
        )
