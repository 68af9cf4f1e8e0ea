"""`kit bench`: what a training step costs here, on base models of their real size."""
