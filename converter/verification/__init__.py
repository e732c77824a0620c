"""Proof of a conversion: real llama.cpp, in a subprocess, against unmerged PEFT.

Nothing is imported here, so that the llama.cpp worker starts without torch.
"""
