"""Hosts: architectures of llama.cpp that run a Gemma 1 or 2 whose head is no longer its embedding.

llama.cpp's gemma and gemma2 never read output.weight. Each module here turns the planned merged model into that of one
host, whose graph computes the same function with a head of its own. The mathematics is in each module's docstring.
"""
