"""Pictures get in by themselves: upload, folders of the machine, data sets that are there."""
