"""Where candidates are evaluated: in this process, or in spawned workers that may die."""
