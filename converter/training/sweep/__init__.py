"""Many training runs of one data set: which setting to ship, and what that rests on. Each trial is a normal run.

Without torch: what trains is passed in.
"""
