"""Makes the fixtures: checkpoints by rule, goldens that two derivations agree on, and the check of stored ones."""
