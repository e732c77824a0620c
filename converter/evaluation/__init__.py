"""The numbers behind a plan's sources: rows read and merged in float64, and rounded once to a GGML type."""
