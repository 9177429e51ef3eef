"""The same models on ONNX Runtime: export, and what runs the exported folder."""
