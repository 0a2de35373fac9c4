"""Look inside a model while it reads a text: odds, attention, logit lens, loops, two beside.

from minimind.inspect import read, token_odds, write_page

model, tokenizer = minimind.load("runs/quickstart/dpo")
reading = read(model, tokenizer, "床前明月光，", generate=40)
print([(odds.text, odds.probability) for odds in token_odds(reading)])
write_page("inspect.html", [reading])
"""

from minimind.inspect.compare import Comparison, Segment, compare, read_beside
from minimind.inspect.odds import Alternative, LogitLens, TokenOdds, logit_lens, token_odds
from minimind.inspect.page import write_page
from minimind.inspect.prompts import read
from minimind.inspect.reading import Reading, read_ids
from minimind.inspect.repetition import HeadScores, Repetition, repetition

__all__ = [
    "Alternative",
    "Comparison",
    "HeadScores",
    "LogitLens",
    "Reading",
    "Repetition",
    "Segment",
    "TokenOdds",
    "compare",
    "logit_lens",
    "read",
    "read_beside",
    "read_ids",
    "repetition",
    "token_odds",
    "write_page",
]
