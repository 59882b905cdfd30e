"""What a result hangs on, and whether it can be made again.

recorded.py     the values of a recorded training as a Config, and what the record lacks
differences.py  what differs between a recorded training and this machine, and how much each difference weighs
repeat.py       trains again and compares every epoch
reproduction.py from the name of a run to the verdict on its repetition
old_code.py     trains with the code of a recorded commit, in a temporary worktree
lineage.py      from a figure back to all it hangs on, and from data or a commit to what was made from them
"""
