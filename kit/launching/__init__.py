"""One training in several processes: `accelerate launch` made of the settings, started and watched.

`kit train`, the notebook and the queue go this way where more than one process is asked for. It is
a process of its own that starts the others, hands on what is asked of it, and has the last word
where the training died without one. Torch is loaded by those others alone.
"""
