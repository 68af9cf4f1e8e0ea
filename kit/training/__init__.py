"""Training: the loop, a step, and what a run needs for them."""
