"""Tones and rhymes of classical verse, learnt from the Tang poets themselves.

Modern pinyin is wrong for them: 一, 白 and 国 were oblique (仄), and 间 rhymes with 山 but not with
天. No table is shipped; both are read from the package chinese-poetry (npm, MIT):

- **Tones**: its `strains` give the tone of every character of every Tang poem as 平, 仄, or ○ where
  the reading decides. A character has the tone that at least 85 % of its occurrences have, else it
  fits both.
- **Rhymes**: characters that end couplets of one regulated poem rhyme. Label propagation (Raghavan
  et al. 2007) over the graph of such pairs finds groups that are, as far as we compared, those of
  the rhyme books (平水韵): 东 and 冬, 支 and 微, 真, 文 and 元 come out apart. 36,842 poems of two
  or four couplets; rare characters have no group, and then nobody can say whether they rhyme.
"""

from __future__ import annotations

import json
import math
import random
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from minimind.data.sources.text import simplifier

SURE = 0.85
"""Share of occurrences with one tone from which a character counts as having it."""

ROUNDS = 30
"""Of label propagation at most; it has settled after about 8."""

FEWEST_PAIRS = 3
"""Characters seen rhyming less often than this get no group."""

_COUPLET = re.compile(r"(\w{5}|\w{7})，(\w{5}|\w{7})。")
Poem = Sequence[str]


@dataclass(frozen=True, slots=True)
class Prosody:
    """What is known of characters.

    Attributes:
        tones: 平 or 仄; those that are not here fit both.
        rhymes: the group of a character, named by one of its members.
    """

    tones: Mapping[str, str]
    rhymes: Mapping[str, str]

    def fits(self, character: str, tone: str) -> bool:
        """Tell whether a character can be read in this tone."""
        return self.tones.get(character, tone) == tone

    def rhyme(self, one: str, other: str) -> bool:
        """Tell whether two different characters are known to rhyme."""
        group = self.rhymes.get(one)
        return one != other and group is not None and group == self.rhymes.get(other)


def read_prosody(archive: Path) -> Prosody:
    """Learn tones and rhymes from chinese-poetry's Tang poems; takes about 4 seconds.

    Raises:
        MissingExtraError: opencc is not installed.
    """
    poems, strains = _read_tang(archive)
    both = ((poems[name], marks) for name, marks in strains.items() if name in poems)
    return Prosody(tones(both), rhyme_groups(poems.values()))


def _read_tang(archive: Path) -> tuple[dict[str, Poem], dict[str, Poem]]:
    """Return the lines (in simplified script) and the tone marks of the Tang poems, by their id."""
    poems: dict[str, Poem] = {}
    strains: dict[str, Poem] = {}
    simplify = simplifier()
    with tarfile.open(archive) as package:
        for member in package:
            found = re.match(r"package/dist/(quantangshi|strains/json)/poet\.tang\.", member.name)
            content = package.extractfile(member) if found and member.isfile() else None
            for poem in json.loads(content.read()) if content is not None else ():
                if "strains" in poem:
                    strains[poem["id"]] = poem["strains"]
                else:
                    poems[poem["id"]] = [simplify(line) for line in poem["paragraphs"]]
    return poems, strains


def tones(marked: Iterable[tuple[Poem, Poem]]) -> dict[str, str]:
    """Return the tone of each character that has one.

    Args:
        marked: (lines, tone marks) of each poem; lines of unlike length are passed over.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for lines, marks in marked:
        for line, tone in zip(lines, marks, strict=False):
            if len(line) == len(tone):
                for character, mark in zip(line, tone, strict=True):
                    counts[character][mark] += 1
    return {
        character: tone
        for character, marks in counts.items()
        for tone in "平仄"
        if marks[tone] >= SURE * marks.total()
    }


def rhyme_groups(poems: Iterable[Poem], *, seed: int = 0) -> dict[str, str]:
    """Group the characters that end the couplets of poems of two or four couplets."""
    near, single = _rhyming_pairs(poems)
    members = [c for c, _ in single.most_common() if sum(near[c].values()) >= FEWEST_PAIRS]
    group = {character: character for character in members}
    generator = random.Random(seed)
    for _ in range(ROUNDS):
        order = members.copy()
        generator.shuffle(order)
        moved = 0
        for character in order:
            votes: defaultdict[str, float] = defaultdict(float)
            for other, count in near[character].items():
                if other in group:
                    votes[group[other]] += count / math.sqrt(single[other])
            best = max(votes, key=lambda name: (votes[name], name), default=group[character])
            moved += best != group[character]
            group[character] = best
        if not moved:
            break
    return group


def _rhyming_pairs(poems: Iterable[Poem]) -> tuple[dict[str, Counter[str]], Counter[str]]:
    near: defaultdict[str, Counter[str]] = defaultdict(Counter)
    single: Counter[str] = Counter()
    for lines in poems:
        if len(lines) in (2, 4) and all(_COUPLET.fullmatch(line) for line in lines):
            ends = sorted({line[-2] for line in lines})
            single.update(ends)
            for one, other in combinations(ends, 2):
                near[one][other] += 1
                near[other][one] += 1
    return near, single
