"""From a float model to a quantized ONNX file, per block as the precision genes say."""
