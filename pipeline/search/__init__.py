"""The search for hyperparameters. A package imports only from those below its own.

studies/      runs a study: one owner decides and records, and what a study leaves behind
engines/      trains: the workers of this machine, or a simulation
schedulers/   decides which trial starts, which resumes and until which epoch
space/        the values that are searched, as configurations and as numbers
"""
