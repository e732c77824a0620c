"""The commands: what they are told, print and end with; the rest is the library's."""

import gc

# Nothing that importing makes is garbage: looking through it again and again takes a tenth of adapter-check's time.
# A command turns the collector on when it runs (command.py).
gc.disable()
