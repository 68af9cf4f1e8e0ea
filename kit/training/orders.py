"""What process 0 tells the others to do: the words, and which of them all then do together."""

from __future__ import annotations

from enum import IntEnum


class Order(IntEnum):
    """What process 0 tells the others to do next."""

    STEP = 1  # make your part of this step's gradient
    UPDATE = 2  # move the weights
    SKIP = 3  # leave the step out
    STATE = 4  # take this state over
    RATES = 5  # what the learning rates are multiplied by
    MEET = 6  # come to where the others are
    DRAW = 7  # a picture each
    ASK = 8  # your part of the pictures that are validated on
    END = 9


MET = (Order.STEP, Order.MEET, Order.DRAW, Order.ASK)  # what all of them then do together


class Dismissed(BaseException):
    """Process 0 says that the run is over."""
