"""What has no field of its own."""

from tests.effects.observers import plan
from tests.effects.stage import Row

ROWS = {"additional_parameters": Row(plan, "--max_train_epochs=3 --train_batch_size 2")}
