"""Kernel sources compiled ahead of time to cubins, and host functions of CUDA programs."""
