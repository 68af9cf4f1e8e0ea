"""The plan of a run: what will happen, decided before torch is loaded."""

from kit.planning.deciding import plan as plan
from kit.planning.value import Plan as Plan
