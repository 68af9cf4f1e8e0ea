"""Adapters: small trained changes beside the frozen layers of a base model.

An adapter is mathematics first (`delta` is the learned change of a weight), plumbing second (a
forward hook adds the same change to the layer's output). The network knows which layer has which
adapter.
"""
