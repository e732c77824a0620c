"""Development only: what llama.cpp's own converter and its graphs do with a model, measured instead of read.

    python -m tools.architecture MODEL_TYPE    drafts the table of an architecture, or checks the one that is there

Where the converter's sources lie, see tools/llama_cpp_sources.py.
"""
