"""Text from a network: engine, sampling, chat, batches of prompts."""
