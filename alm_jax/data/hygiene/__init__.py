"""What a dataset must not hold: records of the evaluation sets, copies, what a licence forbids."""
