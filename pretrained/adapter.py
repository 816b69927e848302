"""Adapters on disk, in PEFT's own format: adapter_config.json and adapter_model.safetensors.

PEFT's tensor names are ours behind a prefix. An adapter that the network can hold unmerged (LoRA of
one rank and scale on linears of the layers; embedding and head whole) is read and written; every
other one can only be merged (`pretrained.merged`). The digest of the base is in the safetensors
metadata, which other readers ignore, so that an adapter is not put on another base unnoticed.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.adapters import add_lora, unwrapped_name
from model.config import ModelConfig
from model.lora.layer import EMBEDDING_MODULE, HEAD_MODULE, SAVED_NAMES, LoraConfig
from model.transformer import Mistral
from pretrained.adapter_config import CONFIG, read_config
from pretrained.adapter_tensors import (
    BASE_DIGEST,
    COPIES,
    PREFIX,
    STORED_BASE,
    WEIGHTS,
    AdapterTensors,
)
from pretrained.adapter_update import LowRank, TokenRows, Update, Whole
from pretrained.safetensors_folder import PretrainedFolder, SavedTokenizer, digest_of
from storage.atomic import new_folder

TABLES = tuple(SAVED_NAMES.values())
"""Embedding and head."""
_CHUNK = 4096  # rows that are compared at a time


class AdapterFolder:
    """An adapter opened for reading; tensors stay on disk until they are read.

    Attributes:
        settings: the settings in adapter_config.json.
        base: path of the base model in adapter_config.json; None if it has none.
        base_digest: `PretrainedFolder.digest` of the base that it was trained on, where known.
        updates: tensor name in the base -> update of that tensor.
        stored_base: tensor name in the base -> name in the adapter, for whole tensors.
        shapes: the shape of every tensor of the adapter that counts, by the name it has in the
            network.

    Raises:
        ValueError: a file is missing or damaged, or asks for what is not implemented.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.settings = read_config(self.folder)
        self.base = self.settings.base
        self._tensors = AdapterTensors(self.folder)
        self.base_digest = self._tensors.base_digest
        self.updates: dict[str, Update] = {}
        self.stored_base: dict[str, str] = {}
        stored = self._tensors.shapes
        for module, ends in self._tensors.modules.items():
            name = f"{module}.weight"
            self.updates[name] = self._update(module, ends)
            for end in ends & STORED_BASE:
                self.stored_base[name] = f"{module}.{end}"
        if not self.updates:
            raise ValueError(f"{self.folder / WEIGHTS} holds no tensor; there is nothing to merge")
        counting = {name for update in self.updates.values() for name in update.names()}
        counting |= set(self.stored_base.values())
        self.shapes = {name: stored[name] for name in sorted(counting)}
        for name, update in self.updates.items():
            self._check_shapes(name.removesuffix(".weight"), update)

    def _update(self, module: str, ends: set[str]) -> Update:
        """Update of a module from its tensors."""
        if ends - COPIES == {"weight"}:
            return Whole(f"{module}.weight")
        if ends - STORED_BASE == {"token_adapter.trainable_tokens_delta"}:
            rows = self.settings.rows_of(module)
            name = f"{module}.token_adapter.trainable_tokens_delta"
            return TokenRows(name, None if rows is None else tuple(rows))
        magnitude = next((end for end in sorted(ends) if "lora_magnitude_vector" in end), None)
        factors = sorted(ends - STORED_BASE - {magnitude})
        embedding = factors == ["lora_embedding_A", "lora_embedding_B"]
        if not embedding and factors != ["lora_A.weight", "lora_B.weight"]:
            raise ValueError(
                f"{self.folder / WEIGHTS} has {', '.join(sorted(ends))} of {module}, which is not "
                "a complete update: a part is missing, or belongs to a kind of adapter that is not "
                "implemented; merge it with PEFT and give the merged folder"
            )
        if (magnitude is not None) != self.settings.dora:
            raise ValueError(
                f"{self.folder}: {CONFIG} says use_dora={self.settings.dora}, but {module} has "
                f"{'no' if magnitude is None else 'a'} lora_magnitude_vector"
            )
        if not self.settings.adapts(module):
            raise ValueError(
                f"{self.folder / WEIGHTS} holds an update of {module}, which {CONFIG} does not "
                "name (target_modules, exclude_modules, layers_to_transform), so that PEFT passes "
                "it over; remove the tensors, or correct the file"
            )
        return LowRank(
            a=f"{module}.{factors[0]}",
            b=f"{module}.{factors[1]}",
            scale=self.settings.scale_of(module),
            embedding=embedding,
            magnitude=None if magnitude is None else f"{module}.{magnitude}",
        )

    def _check_shapes(self, module: str, update: Update) -> None:
        """Compare the tensors of an update with each other and with the settings."""
        if isinstance(update, TokenRows) and update.rows is not None:
            (height, _), wanted = self.shapes[update.name], len(update.rows)
            if height != wanted:
                raise ValueError(
                    f"{self.folder}: trainable_token_indices has {wanted} ids for {module}, and "
                    f"there are {height} rows"
                )
        if isinstance(update, LowRank):
            ranks = {self.shapes[update.a][0], self.shapes[update.b][-1]}
            if ranks != {rank := self.settings.rank_of(module)}:
                raise ValueError(
                    f"{self.folder}: {CONFIG} says r={rank}, the tensors of {module} have rank "
                    f"{', '.join(map(str, sorted(ranks)))}"
                )

    def read(self, name: str, rows: slice | tuple[slice, slice]) -> Tensor:
        """Rows of one tensor, or a part of a matrix; only they are read from disk.

        Raises:
            ValueError: a value is infinite or NaN.
        """
        return self._tensors.read(name, rows)

    def digest(self, config: ModelConfig) -> str:
        """sha256 over what a merge reads: settings, and some rows of the tensors as stored.

        Args:
            config: of the base, see `telling_rows`.
        """
        settings: list[Any] = [self.settings.weight_tying]
        for name, update in sorted(self.updates.items()):
            if isinstance(update, LowRank):
                settings.append([name, update.scale])
            elif isinstance(update, TokenRows):
                settings.append([name, update.rows])
        tensors = digest_of(self.read, self.shapes, config)
        return hashlib.sha256(f"{json.dumps(settings)} {tensors}".encode()).hexdigest()

    def vocabulary(self, config: ModelConfig) -> int:
        """Rows of the vocabulary that the adapter is for; those of the base where it has none.

        Raises:
            ValueError: embedding and head have different ones.
        """
        heights = {name: height for name in TABLES if (height := self._height(name)) is not None}
        if len(set(heights.values())) > 1:
            raise ValueError(
                f"{self.folder} has different numbers of rows of the vocabulary: "
                + ", ".join(f"{height} of {name}" for name, height in heights.items())
            )
        return next(iter(heights.values()), config.vocab_size)

    def _height(self, table: str) -> int | None:
        if table in self.stored_base:
            return self.shapes[self.stored_base[table]][0]
        update = self.updates.get(table)
        if isinstance(update, Whole):
            return self.shapes[update.name][0]
        if isinstance(update, LowRank):
            return self.shapes[update.a][1] if update.embedding else self.shapes[update.b][0]
        return None

    def base_name(self, table: str, config: ModelConfig) -> str | None:
        """The tensor of the adapter that takes the place of a table of the base, if there is one.

        A tied model has one table, so that what is stored as that of the head is the embedding.
        """
        tied = TABLES if config.tie_word_embeddings else ()
        found = (self.stored_base.get(name) for name in (table, *tied))
        return next(filter(None, found), None)

    @cached_property
    def head_follows(self) -> bool:
        """True if the head of a tied model stays equal to its embedding under this adapter.

        PEFT adapts the two independently unless `ensure_weight_tying` is set.
        """
        embedding, head = (self.updates.get(name) for name in TABLES)
        if self.settings.weight_tying and embedding is not None:
            # The norms of DoRA differ between the two tables, and so do the adapted tables.
            return not (self.settings.dora and head is not None)
        if head is None:
            return embedding is None or isinstance(embedding, TokenRows)
        if isinstance(head, TokenRows) and isinstance(embedding, TokenRows):
            return head.rows in (None, embedding.rows)
        if isinstance(head, Whole) and isinstance(embedding, Whole):
            height = self.shapes[head.name][0]
            parts = (slice(first, first + _CHUNK) for first in range(0, height, _CHUNK))
            return self.shapes[head.name] == self.shapes[embedding.name] and all(
                torch.equal(self.read(head.name, rows), self.read(embedding.name, rows))
                for rows in parts
            )
        return False

    @property
    def _tables(self) -> list[str]:
        """The embedding and the head, where the adapter changes them."""
        return [name for name in TABLES if name in self.updates]

    def check(self, base: PretrainedFolder) -> None:
        """Compare with the base that the adapter is to be used on.

        Raises:
            ValueError: another base, or shapes that do not fit.
        """
        tied = base.config.tie_word_embeddings
        rows = self._check_vocabulary(base)
        if tied and len({isinstance(self.updates[n], TokenRows) for n in self._tables}) > 1:
            raise ValueError(
                f"{self.folder} trains rows of one table (trainable_token_indices) and changes the "
                f"other in another way ({', '.join(self._tables)}), and {base.folder} ties the two "
                "tables; give the folder that PEFT merges (merge_and_unload)"
            )
        for name, update in self.updates.items():
            table = TABLES[0] if tied and name in TABLES else name
            if table not in base.shapes:
                raise ValueError(
                    f"{self.folder} was trained on another base, or for another task than text: it "
                    f"changes {name}, which {base.folder} does not have"
                )
            shape = base.shapes[table]
            if name in TABLES:
                shape = torch.Size((rows, *shape[1:]))
            for tensor, wanted in self._wanted_shapes(name, update, shape).items():
                if self.shapes[tensor] != wanted:
                    raise ValueError(
                        f"{self.folder} was trained on another base: {tensor} has shape "
                        f"{tuple(self.shapes[tensor])}, the base means {tuple(wanted)}"
                    )
            if isinstance(update, TokenRows):
                self._check_token_rows(name, update, rows, follows=tied and self.head_follows)
        if self.base_digest not in (None, base.digest):
            raise ValueError(
                f"{self.folder} was trained on other weights than {base.folder} holds; name its "
                f"base ({self.base})"
            )

    def _check_vocabulary(self, base: PretrainedFolder) -> int:
        """Rows of the vocabulary with this adapter; ValueError if some would be missing."""
        config = base.config
        rows = self.vocabulary(config)
        alone = config.tie_word_embeddings and self.head_follows
        for table in TABLES[:1] if alone else TABLES:
            whole = isinstance(self.updates.get(table), Whole)
            if rows != config.vocab_size and not whole and self.base_name(table, config) is None:
                raise ValueError(
                    f"{self.folder} has {rows} rows of the vocabulary against {config.vocab_size} "
                    f"of {base.folder}, and does not hold {table} whole; resize the base as it was "
                    "resized for training, or name one that was (base=)"
                )
        return rows

    def _wanted_shapes(
        self, name: str, update: Update, shape: torch.Size
    ) -> dict[str, tuple[int, ...]]:
        """Of every tensor of an update, for the shape of what it changes."""
        wanted: dict[str, tuple[int, ...]] = {}
        if name in self.stored_base:
            wanted[self.stored_base[name]] = tuple(shape)
        if isinstance(update, Whole):
            wanted[update.name] = tuple(shape)
        elif isinstance(update, TokenRows):
            wanted[update.name] = (self.shapes[update.name][0], *shape[1:])
        elif isinstance(update, LowRank):
            rank = self.settings.rank_of(name.removesuffix(".weight"))
            outer, inner = shape if len(shape) == 2 else (0, 0)
            if update.embedding:
                outer, inner = inner, outer
            wanted |= {update.a: (rank, inner), update.b: (outer, rank)}
            if update.magnitude is not None:
                wanted[update.magnitude] = (outer,)
        return wanted

    def _check_token_rows(self, name: str, update: TokenRows, rows: int, *, follows: bool) -> None:
        if update.rows is None and not follows:
            raise ValueError(
                f"{self.folder} holds rows of {name}, for which {CONFIG} has no "
                "trainable_token_indices"
            )
        if (largest := max(update.rows or (), default=0)) >= rows:
            raise ValueError(
                f"{self.folder}: trainable_token_indices names id {largest}, and the vocabulary "
                f"has {rows} rows"
            )

    def obstacle(self, config: ModelConfig) -> str | None:
        """Reason against an unmerged use and further training of this adapter, or None.

        Args:
            config: of the base.
        """
        settings, tied = self.settings, config.tie_word_embeddings
        tables = [name for name in TABLES if name in self.updates]
        linears = [n.removesuffix(".weight") for n in self.updates.keys() - {*TABLES}]
        if settings.dora:
            return "use_dora=true"
        for name, update in self.updates.items():
            if isinstance(update, TokenRows):
                return "trainable_token_indices"
            if isinstance(update, LowRank) == (name in TABLES):
                return f"{name} is trained " + ("whole" if name not in TABLES else "by an update")
        if self.vocabulary(config) != config.vocab_size:
            return "a vocabulary of another size than that of the base"
        if tied and tables and not self.head_follows:
            return "embedding and head of a tied model are trained independently"
        if not linears:
            return "no linear is adapted"
        if len({(settings.rank_of(name), settings.scale_of(name)) for name in linears}) > 1:
            return "rank_pattern or alpha_pattern"
        if settings.scale_of(linears[0]) <= 0:
            return f"lora_alpha={settings.alpha}"
        return None

    def untrained(self) -> str | None:
        """Table that the adapter stores whole and did not train, or None."""
        for name in TABLES:
            module = name.removesuffix(".weight")
            if name in self.updates and not (
                self.settings.saves(module) or (name == TABLES[1] and self.settings.weight_tying)
            ):
                return f"{name} is stored, and modules_to_save does not name it"
        return None

    def lora(self, config: ModelConfig) -> LoraConfig:
        """The adapter as `add_lora` takes it.

        Raises:
            ValueError: the network cannot hold it unmerged.
        """
        if reason := self.obstacle(config):
            raise ValueError(
                f"{self.folder}: {reason}; such an adapter can only be merged (python -m "
                "scripts.export folder=<it> out=<folder>)"
            )
        tables = [name for name, tensor in SAVED_NAMES.items() if tensor in self.updates]
        modules = [name.removesuffix(".weight") for name in self.updates if name not in TABLES]
        rank = self.settings.rank_of(modules[0])
        return LoraConfig(
            rank=rank,
            alpha=self.settings.alpha_of(modules[0]),
            dropout=self.settings.dropout,
            rslora=self.settings.rslora,
            targets=shortest(modules, config.num_hidden_layers),
            modules_to_save=tables[:1] if config.tie_word_embeddings else tables,
        )


def load_adapter(model: Mistral, adapter: AdapterFolder, base: PretrainedFolder) -> None:
    """Put an adapter on a loaded model, unmerged, in the dtype and on the device of the model.

    Args:
        base: where the model's weights come from.

    Raises:
        ValueError: it does not fit, or the network cannot hold it unmerged.
    """
    adapter.check(base)
    weight = model.lm_head.weight
    dtype, device = weight.dtype, weight.device
    add_lora(model, adapter.lora(model.config), dtype)
    model.to(device=device, dtype=dtype).requires_grad_(False)
    parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
    with torch.no_grad():
        for name in adapter.shapes.keys() & parameters.keys():
            parameters[name].copy_(adapter.read(name, slice(None)))


def save_adapter(
    folder: Path | str,
    model: Mistral,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    base: Path | str,
    base_digest: str,
    tokenizer: SavedTokenizer | None = None,
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write an adapter; the folder appears complete or not at all.

    Args:
        model: that went through `add_lora`.
        tensors: (name, tensor) of all `adapter_names`, whole and not sharded.
        base: folder of the base model, as PEFT will look for it.
        files: what else belongs into the folder, by name.

    Raises:
        ValueError: the folder exists.
    """
    state = {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in tensors}
    if model.config.tie_word_embeddings and PREFIX + SAVED_NAMES[EMBEDDING_MODULE] in state:
        # PEFT trains the two as one, and writes both.
        state[PREFIX + SAVED_NAMES[HEAD_MODULE]] = state[
            PREFIX + SAVED_NAMES[EMBEDDING_MODULE]
        ].clone()
    with new_folder(folder) as partial:
        # One entry of metadata: safetensors writes several in an order that changes between runs.
        save_file(state, partial / WEIGHTS, metadata={BASE_DIGEST: base_digest})
        config = json.dumps(_peft_config(model, base), indent=2, sort_keys=True)
        (partial / CONFIG).write_text(config + "\n", encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save(partial)
        for name, content in files.items():
            (partial / name).write_bytes(content)


def _peft_config(model: Mistral, base: Path | str) -> dict[str, Any]:
    lora = model.lora
    assert lora is not None
    adapted = [n.removesuffix(".lora_A") for n, _ in model.named_modules() if n.endswith(".lora_A")]
    adapted = [unwrapped_name(name) for name in adapted]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "target_modules": shortest(adapted, model.config.num_hidden_layers),
        "modules_to_save": lora.modules_to_save or None,
        "ensure_weight_tying": model.config.tie_word_embeddings and bool(lora.modules_to_save),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def shortest(names: list[str], layers: int) -> list[str]:
    """Last parts of names where they stand for every layer, as servers expect them; else all."""
    leaves = Counter(name.rpartition(".")[2] for name in names)
    if all(count == layers for count in leaves.values()):
        return sorted(leaves)
    return names
