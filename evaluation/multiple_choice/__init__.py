"""Multiple-choice evaluation."""
