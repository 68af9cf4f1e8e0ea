"""Every setting does something, and each does the right thing: a table of all of them.

A new setting needs one line in the table of its section, `rows/<section>.py`:

    "noise_offset": Row(batch, 0.2),
    "huber_c": Row(loss, 0.5, given={"loss_type": "huber"}),

It says: where the effect shows (an observer of `observers.py`, or any function of your own that
takes a stage and settings and returns what it saw), the other value, and what both sides share so
that the setting counts. The base is `BASE` of `stage.py`; where its value is the other one
already, give the plain side's with `plain=`. Both sides are equal but for this setting, seed
included. The test holds where what is seen differs, numbers as much as ever and texts twice alike,
and the plan does not call the setting idle. A new section needs a new file here, with `ROWS`.

"@shared/..." in a value is a place in the folder that `build_fixtures` fills (images, masks, reg,
flat, another VAE, a LoRA to start from ...), "@fresh/..." one in a folder that is new at each look.
`model=` names another base model of it: "sd2", "sd2-v", "sdxl", or "whole", an SD 1.x with all
blocks of the real layout.

For speed and memory, look at what is used (calls, types, threads), never only at "no error".
"""
