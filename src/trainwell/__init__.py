"""The helper package of the course Training Deep Networks Well.

Read it from the ground up; a floor imports only the floors below it:

0. `datasets`, `runtime`: loading and splitting; seeds, profile, device, versions
1. `layers`, `schedules`, `regularization`: the layers, schedules and constraints that Keras does
   not have; `from_scratch`, `surfaces`: every optimizer in NumPy, and losses to run them on
2. `models`: the networks that the chapters share
3. `training`: `fit`, Keras's fit made fast, with a tidy history; `uncertainty`: how sure a
   network is, and how far to believe it
4. `experiments`: many runs over seeds, in parallel
5. `claims`, `figures`: checked sentences; the course's plots

Beside them stands `labs`, which builds the labs: no floor imports it.
"""

__version__ = "0.1.0"
