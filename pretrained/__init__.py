"""Model folders: weights, settings and adapters as Hugging Face and PEFT write them."""
