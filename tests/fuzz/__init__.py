"""Bad input for every reader: nothing but a KitError comes out, nothing hangs, no file is changed.

    python -m tests.fuzz --cases 5000      what it finds, by reader; exit 1 where there is anything
    python -m tests.fuzz --only pickles --seed 7

`values` makes hostile values and damages documents and bytes; `texts`, `tables` and `files` hold
the readers, each a function that writes an input into a folder and gives back what reads it;
`running` runs a case. A case is told by its reader and its number, and is the same on every
machine.
"""
