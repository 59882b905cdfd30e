"""Engines train: they run the owner's orders on workers and report every epoch.

base.py         the contract between an owner and an engine, and the messages
local.py        processes of this machine
worker.py       what such a process does
simulated.py    looks learning curves up and moves a clock, for tests and benchmarks
"""
