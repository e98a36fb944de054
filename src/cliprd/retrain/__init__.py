"""`cliprd retrain`: a new champion where data, parameters or code have changed since the last one.

`plan` says what has changed and whether that is a reason to train; `run` has a runner train, gate, push and promote,
and reports. Nothing outside this repository changes before all that can fail has been done, and the champion moves
last: whatever fails or is killed on the way leaves the old one in use, and the same command goes on from there.
"""
