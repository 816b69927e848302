"""Attention backends; `model.attention` chooses among them."""
