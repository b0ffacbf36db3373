"""Runtimes: what loads, runs and profiles a model file, and nothing above it touches onnxruntime."""
