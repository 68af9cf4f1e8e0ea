"""Images and captions: found, measured, sorted into buckets and batches. Without torch."""
