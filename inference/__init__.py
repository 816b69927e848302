"""The network at work: generation and the server."""
