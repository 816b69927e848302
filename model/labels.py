"""Labels of training rows."""

IGNORE_INDEX = -100
"""Label of a position without supervision: no loss and no gradient (PyTorch's and HF's value)."""
