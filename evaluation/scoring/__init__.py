"""Log-likelihoods of answers."""
