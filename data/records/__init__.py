"""Records of foreign files: documents and conversations."""
