"""A family: GPT-2 with blocks of another class."""

import dataclasses

from ecospa.families.gpt2 import FAMILY as GPT2

BLOCK = "own_model.OwnBlock"
FAMILY = dataclasses.replace(
    GPT2, name="own family", blocks=frozenset({BLOCK}), stock={**GPT2.stock, "": frozenset({BLOCK})}
)
