"""Merge into one HF folder, tensor by tensor: an adapter into its base, several adapters, a chat
vector, task arithmetic, a blend of base and tuned model; or copy a model to another dtype.

    python -m scripts.export folder=runs/<LoRA run> out=merged
    python -m scripts.export folder=base merge=adapters adapters='[runs/a, runs/b]' \\
        weights='[0.7, 0.3]' out=merged
    python -m scripts.export folder=domain merge=chat_vector chat=Mistral-7B-Instruct-v0.1 \\
        base=Mistral-7B-v0.1 out=domain-chat
    python -m scripts.export folder=runs/<name> blend=<base> max_general_bits_per_byte=+0.02 \\
        root=prepared general='[general_en, general_zh]' out=blended
"""

from conf.command import command
from tools.merging.export import ExportConfig, export_folder


@command("export", ExportConfig)
def main(config: ExportConfig) -> None:
    """Write one folder."""
    export_folder(config)
    print(f"written: {config.out}")


if __name__ == "__main__":
    main()
