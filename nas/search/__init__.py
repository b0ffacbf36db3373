"""The search: one driver that owns an Optuna study by ask and tell, and what happens to its front."""
