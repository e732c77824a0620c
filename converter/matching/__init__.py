"""Where a GGUF without a table keeps what an adapter touches: found by comparing it with its checkpoint.

What is found has the form of a table's places, so that nothing behind it knows the difference.
"""
