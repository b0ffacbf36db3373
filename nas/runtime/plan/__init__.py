"""From an ONNX file to a static program of fused operators, which the native runtime loads without Python."""
