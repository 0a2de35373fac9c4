"""What `minimind data clean` is told: input, output, and the rules in the order they run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from minimind.data.cleaning.decontaminate import Decontaminate
from minimind.data.cleaning.language import HanRatio, Language
from minimind.data.cleaning.licence import Licence
from minimind.data.cleaning.lines import Boilerplate
from minimind.data.cleaning.normalise import Characters, Script, Spacing
from minimind.data.cleaning.page import Editor, Filter
from minimind.data.cleaning.phrases import Adult, Advertising, Gambling, Seo
from minimind.data.cleaning.pii import PersonalData
from minimind.data.cleaning.quality import Quality
from minimind.data.cleaning.repair import Encoding
from minimind.data.cleaning.text import Length, Listing, Punctuation, Repetition, Unreadable
from minimind.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Input:
    """What is read.

    Attributes:
        paths: files, folders or patterns: .jsonl, .txt (each also .zst or .gz), .parquet, .warc.
        licences: one for each of `paths`, for rows that name none themselves ("" is unknown).
        text: the field that holds the text. Without it, `text` or `content`.
        shard_mb: uncompressed JSONL is cut into pieces of this many MB, each a unit of work.
    """

    paths: tuple[str, ...] = ()
    licences: tuple[str, ...] | None = None
    text: str | None = None
    shard_mb: int = 64

    def __post_init__(self) -> None:
        if self.licences is not None and len(self.licences) != len(self.paths):
            raise ConfigError(
                f"input.licences has {len(self.licences)} entries, input.paths has "
                f"{len(self.paths)}: give one a path"
            )
        if self.shard_mb < 1:
            raise ConfigError(f"input.shard_mb = {self.shard_mb}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Rules on one document, in the order they run. Each is a table of the TOML file.

    Editors come first, so that filters see the text that would be kept; the licence is asked before
    boilerplate lines, which often hold it, are removed.
    """

    encoding: Encoding = field(default_factory=Encoding)
    characters: Characters = field(default_factory=Characters)
    script: Script = field(default_factory=Script)
    spacing: Spacing = field(default_factory=Spacing)
    pii: PersonalData = field(default_factory=PersonalData)
    licence: Licence = field(default_factory=Licence)
    boilerplate: Boilerplate = field(default_factory=Boilerplate)
    unreadable: Unreadable = field(default_factory=Unreadable)
    length: Length = field(default_factory=Length)
    language: Language = field(default_factory=Language)
    han_ratio: HanRatio = field(default_factory=HanRatio)
    listing: Listing = field(default_factory=Listing)
    punctuation: Punctuation = field(default_factory=Punctuation)
    repetition: Repetition = field(default_factory=Repetition)
    advertising: Advertising = field(default_factory=Advertising)
    seo: Seo = field(default_factory=Seo)
    adult: Adult = field(default_factory=Adult)
    gambling: Gambling = field(default_factory=Gambling)
    quality: Quality = field(default_factory=Quality)
    decontaminate: Decontaminate = field(default_factory=Decontaminate)

    def active(self) -> list[tuple[str, Editor | Filter]]:
        """Return (name, rule) of those that are on, in order."""
        rules = ((f.name, getattr(self, f.name)) for f in fields(self))
        return [(name, rule) for name, rule in rules if rule.on]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Lines that many documents have in common are kept in the first of them only.

    Attributes:
        minimum: characters of a line that is looked at; shorter ones are headings and speakers.
        documents: from so many documents on.
    """

    on: bool = True
    minimum: int = 12
    documents: int = 10


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Exact and near-duplicate documents; the first is kept.

    Near means: the sets of runs of `n` letters and digits have a Jaccard similarity of `threshold`
    by MinHash (Broder 1997) with `permutations`, looked up in `bands`.
    """

    exact: bool = True
    near: bool = True
    n: int = 4
    threshold: float = 0.5
    permutations: int = 128
    bands: int = 32
    minimum: int = 40

    def __post_init__(self) -> None:
        if self.permutations % self.bands:
            raise ConfigError(
                f"duplicates.bands = {self.bands} must divide "
                f"duplicates.permutations = {self.permutations}"
            )


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """One cleaning run.

    Attributes:
        out: the folder for clean shards, rejects, the log of edits, the report and the ledger.
        executor: `local` processes, or `ray` (a cluster; `out` and the input must be shared by its
            machines). Both give the same output.
        workers: processes; None: one a core.
    """

    out: str = "clean"
    executor: Literal["local", "ray"] = "local"
    workers: int | None = None
    input: Input = field(default_factory=Input)
    rules: Rules = field(default_factory=Rules)
    lines: Lines = field(default_factory=Lines)
    duplicates: Duplicates = field(default_factory=Duplicates)
