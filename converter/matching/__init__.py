"""Where a GGUF whose architecture has no table keeps what an adapter touches: found by comparing it with its checkpoint.

What is found has the form of a table's places, so that nothing behind it knows the difference.
"""
