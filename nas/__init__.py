"""Hardware-aware neural architecture search for quantized CNNs and transformers on CPU."""

__version__ = "0.1.0"
