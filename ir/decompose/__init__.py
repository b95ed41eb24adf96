"""The meaning of every op again, in ONNX operators. Shares no code with `ir/reference`."""
