"""Engines train: they run the owner's orders on workers and report every epoch.

base.py         the contract between an owner and an engine, and the messages
local.py        processes of this machine
worker.py       what such a process does
ray.py          actors of a Ray cluster
trainer.py      what a worker does with an order, whichever engine it belongs to
sharing.py      workers that share a GPU
building.py     which engine a study gets
simulated.py    looks learning curves up and moves a clock, for tests and benchmarks
"""
