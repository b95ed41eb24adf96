"""Tasks made from benchmarks' own files, with the prompts of published numbers."""
