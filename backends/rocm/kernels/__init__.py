"""Host functions of ROCm programs: calls of AITER. Torch's own are portable's."""
