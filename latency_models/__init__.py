"""Models that predict latency and energy from a lowered graph; they know the nouns of ``nas`` and nothing else."""
