"""A model behind OpenAI's HTTP interface, for a laptop."""
