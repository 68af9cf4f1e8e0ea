"""The contact sheet: a data set's pictures with their cuts and captions, and its preparation."""
