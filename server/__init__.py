"""What users talk to: a gateway for HTTP and an engine for steps. Knows no compiler."""
