"""Tokenizer, sources and initial weights of a run, opened and compared with each other."""

from dataclasses import asdict, replace
from pathlib import Path

from data.prepare.check_overlap import require_decontaminated
from data.prepare.tokenizer_files import open_exportable
from data.rows.conversations import Conversations
from data.rows.shards import Source
from data.rows.sources import AnySource, open_source
from model.config import ModelConfig
from pretrained.folder import Folder, open_folder, own_tokenizer
from storage.checksum import sha256_of
from tokenizer.folder import check_rows
from tokenizer.tokenizer import Tokenizer
from training.run.resume import HELD_OUT
from training.run.started_from import KeptFolder

COMPARED_DOCUMENTS = 20
"""Number of documents by which two tokenizers are compared."""


def open_tokenizer(path: str) -> Tokenizer:
    """The tokenizer of the data, if it can also be written with the trained weights."""
    return open_exportable(path, "data.tokenizer")


def open_sources(
    root: str, folders: dict[str, str], tokenizer: Tokenizer, recorded: dict[str, str]
) -> dict[str, AnySource]:
    """Open every source; check that it was prepared with this tokenizer, and, before a run begins,
    that no source trains on what another holds out (`data.prepare.check_overlap`).

    Args:
        folders: the folder of each source under `root`.
        recorded: fingerprints of an existing run, empty for a new one. A source
            that has grown since is opened as it was then: the rows of a run follow from all of it.

    Raises:
        ValueError: a source does not exist or does not fit, or its overlap is not checked.
    """
    sources = {}
    for name, folder in folders.items():
        try:
            sources[name] = source = open_source(Path(root) / folder, recorded.get(name))
        except ValueError as error:
            raise ValueError(f"data.sources.{name}: {error}") from None
        check_prepared_with(name, source, tokenizer)
    if not recorded:  # an existing run has trained on these sources already
        documents = [source for source in sources.values() if isinstance(source, Source)]
        require_decontaminated(documents, "<data.tokenizer>")
    return sources


def check_prepared_with(name: str, source: AnySource, tokenizer: Tokenizer) -> None:
    """ValueError unless a source was prepared with this tokenizer.

    A vocabulary that was saved in another form (tokenizer.json in place of tokenizer.model) has
    another fingerprint, since its ids may differ in rare texts.
    """
    made = source.manifest["tokenizer"]
    if made["fingerprint"] == tokenizer.fingerprint:
        if isinstance(source, Conversations):
            try:
                source.check_template(tokenizer)
            except ValueError as error:
                raise ValueError(f"data.sources.{name}: {error}") from None
        return
    remedy = "prepare it again, or name its tokenizer"
    mine = {"vocab_size": tokenizer.vocab_size, "bos_id": tokenizer.bos_id}
    if all(made.get(key) == value for key, value in mine.items()):
        same = isinstance(source, Source) and _spells_alike(source, tokenizer)
        found = "is" if same else "may be"
        remedy = (
            f"both have {tokenizer.vocab_size} ids, so it {found} the same vocabulary in another "
            "form (tokenizer.json in place of tokenizer.model): set data.tokenizer to the file "
            "or folder that the source was prepared with, or prepare the source again"
        )
    raise ValueError(
        f"data.sources.{name} was prepared with another tokenizer than data.tokenizer; {remedy}"
    )


def _spells_alike(source: Source, tokenizer: Tokenizer) -> bool:
    """Check that the first documents of a source have the ids that a tokenizer gives them."""
    frame = (tokenizer.bos_id, tokenizer.eos_id)
    for number in range(min(COMPARED_DOCUMENTS, source.documents)):
        ids = [id for id in source.document(number).tolist() if id not in frame]
        if tokenizer.encode(tokenizer.decode(ids)) != ids:
            return False
    return True


def check_same_ids(folder: Path, tokenizer: Tokenizer) -> None:
    """Compare the tokenizer of the data with that of the folder that training starts from.

    Raises:
        ValueError: an id means another piece there, or the folder has more ids: their rows would
            be taken for padding.
    """
    own = own_tokenizer(folder)
    if own is None or own.fingerprint == tokenizer.fingerprint:
        return
    remedy = f"set data.tokenizer={folder} and prepare the data with it"
    for id in range(min(own.vocab_size, tokenizer.vocab_size)):
        if own.piece(id) != tokenizer.piece(id):
            raise ValueError(
                f"init_from={folder} has another vocabulary than data.tokenizer: id {id} is "
                f"{own.piece(id)!r} there and {tokenizer.piece(id)!r} in data.tokenizer; {remedy}"
            )
    if own.vocab_size > tokenizer.vocab_size:
        first = tokenizer.vocab_size
        raise ValueError(
            f"init_from={folder} has {own.vocab_size} ids, data.tokenizer only {first}: "
            f"{own.piece(first)!r} (id {first}) would be taken for padding; {remedy}"
        )


def fingerprints_of(sources: dict[str, AnySource]) -> dict[str, str]:
    """Fingerprints of the data of a run: of the shards and of the held-out text.

    The held-out text is read again, because the manifest has its state at preparation only.
    """
    return {
        **{name: source.fingerprint for name, source in sources.items()},
        **{
            f"{name}{HELD_OUT}": sha256_of(source.folder / "held_out.jsonl")
            for name, source in sources.items()
            if source.held_out_documents
        },
    }


def open_weights(init_from: str | None) -> Folder | None:
    """The weights that `init_from` means: an HF folder, an adapter merged into its base, or what a
    run has ended with."""
    if init_from is None:
        return None
    try:
        return open_folder(init_from)
    except ValueError as error:
        raise ValueError(f"init_from={init_from}: {error}") from None


def network_shape(
    asked: ModelConfig | None, folder: Folder | KeptFolder | None, tokenizer: Tokenizer
) -> ModelConfig:
    """Shape of the network, from the configuration or the initial weights; both must agree.

    Rows of a pretrained vocabulary beyond the tokenizer's pieces are padding: no text has such ids.
    """
    shape = asked or (folder and folder.config)
    assert shape is not None
    if folder is not None:
        given, found = asdict(shape), asdict(folder.config)
        given["head_dim"], found["head_dim"] = shape.head_size, folder.config.head_size
        for key in ("initializer_range", "num_padded_ids"):  # of no matter here, or not HF's
            given[key] = found[key]
        for one, other in ((given, found), (found, given)):  # one may know what the other does not
            if one["num_base_ids"] is None:
                one["num_base_ids"] = other["num_base_ids"]
        if different := [key for key in given if given[key] != found[key]]:
            raise ValueError(
                f"init_from={folder.folder} differs from the configured model: "
                + ", ".join(f"{key} {found[key]} (configured {given[key]})" for key in different)
                + "; set model=pretrained to take the folder's, or these keys to its values"
            )
        shape = replace(shape, num_base_ids=given["num_base_ids"])
        check_rows(folder.folder, tokenizer.vocab_size, shape.vocab_size)
        check_same_ids(folder.folder, tokenizer)
        if tokenizer.vocab_size < shape.vocab_size:
            shape = replace(shape, num_padded_ids=shape.vocab_size - tokenizer.vocab_size)
    if shape.num_tokens != tokenizer.vocab_size:
        raise ValueError(
            f"model.vocab_size={shape.vocab_size} with {shape.num_padded_ids} padded ids, but the "
            f"tokenizer has {tokenizer.vocab_size} pieces; set model.vocab_size, or "
            "model.num_padded_ids to the difference"
        )
    return shape
