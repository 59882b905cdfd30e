"""Schedulers decide which trial starts, which resumes and until which epoch. They are functions of what they see.

base.py           what a scheduler sees and answers; the scheduler `none`
asha.py           asynchronous successive halving
freeze_thaw.py    the default: a model predicts the end of every learning curve
forecast.py       what it expects of trials and of new configurations
curve_gp.py       that model, a Gaussian process over values and epochs
"""
