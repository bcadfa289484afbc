"""Inference without torch: ONNX Runtime proposes, NumPy refines."""
