"""Training: the functions and objects that train.py calls."""
