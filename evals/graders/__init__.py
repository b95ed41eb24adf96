"""One grader a kind of example: what its reference is, and when an answer is right."""
