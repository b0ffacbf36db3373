"""Measuring latency, memory and energy of model files on a device; each model runs in a process of its own."""
