"""Growth of a vocabulary: candidates, rules, merges."""
