"""Engines train: they run the owner's orders on workers and report every epoch.

base.py         the contract between an owner and an engine, and the messages
local.py        processes of this machine
worker.py       what such a process does
ray.py          actors of a Ray cluster
actor.py        what such an actor does
trainer.py      what a worker does with an order, whichever engine it belongs to
places.py       where a worker keeps the files of a trial
store.py        files of trials in an object store, which owner and workers reach
sharing.py      workers that share a GPU
building.py     which engine a study gets
simulated.py    looks learning curves up and moves a clock, for tests and benchmarks
"""
