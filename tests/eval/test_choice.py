import pytest
import torch

from doubles import byte_tokenizer, tiny_config
from minimind.data.document import Document
from minimind.eval.choice import choice_items, choice_measures
from minimind.eval.tasks.questions import CHOICES, Entry, make_items
from minimind.eval.tasks.readers import icd_term, idiom_cloze, idiom_meaning, law_article
from minimind.model import CausalLM

IDIOM = Document(
    "画蛇添足（huà shé tiān zú）：比喻做了多余的事，反而有害无益。\n出处：《战国策》\n"
    "例句：这样写就有点画蛇添足了。（鲁迅《杂文》）",
    "i", {"source": "idioms"},
)  # fmt: skip
ICD = Document(
    "A00 霍乱（Cholera）\nA00.9 未特指的霍乱（Cholera, unspecified）", "c", {"source": "icd10"}
)
LAW = Document(
    "《中华人民共和国野生动物保护法》 第一章 总则\n第一条 为了保护野生动物，拯救珍贵、濒危"
    "野生动物，维护生物多样性，制定本法。\n第二条 野生动物保护法的适用范围，按照本条的规定确定，"
    "不得超出。\n第三条 短。",
    "l", {"source": "laws"},
)  # fmt: skip


def test_entries_are_read_from_the_documents_as_they_are_built():
    (cloze,) = idiom_cloze(IDIOM)
    assert (cloze.before, cloze.answer, cloze.after) == ("这样写就有点", "画蛇添足", "了。")
    (meaning,) = idiom_meaning(IDIOM)
    assert meaning.before == "画蛇添足（huà shé tiān zú）："
    assert meaning.answer == "比喻做了多余的事，反而有害无益。"
    first, second = icd_term(ICD)
    assert (first.before, first.answer, first.after) == ("A00 ", "霍乱", "（Cholera）")
    assert second.answer == "未特指的霍乱"


def test_articles_that_name_their_law_are_not_asked():
    (article,) = law_article(LAW)
    assert article.answer == "中华人民共和国野生动物保护法"
    assert article.scored.startswith("第一条 为了保护野生动物")
    assert (article.before, article.after) == ("《", "》\n")


def test_other_sources_give_no_questions():
    law = Document("第一条（一）：为了规范", "l", {"source": "laws"})
    assert choice_items([law]) == {}


def entries(n=40):
    return [Entry(before=f"第{i}：", answer="字" * (3 + i % 5) + str(i), key=str(i))
            for i in range(n)]  # fmt: skip


def test_items_have_four_different_answers_of_like_length_and_repeat_by_seed():
    items = make_items(entries(), limit=30, seed=1)
    assert len(items) == 30
    for item in items:
        assert len(set(item.choices)) == CHOICES
        assert item.choices[item.answer] == item.reference
        weights = item.extra["weights"]
        assert max(weights) - min(weights) <= 4
    assert items == make_items(entries(), limit=30, seed=1)
    assert items != make_items(entries(), limit=30, seed=2)
    assert {item.answer for item in items} == set(range(CHOICES))
    assert make_items(entries(3)) == []


def test_what_training_text_mentions_is_not_asked():
    idioms = [
        Document(f"{a}{b}成语（x）：意思是{a}和{b}在一起。", f"{a}{b}", {"source": "idioms"})
        for a in "甲乙丙丁"
        for b in "子丑寅卯"
    ]
    everything = choice_items(idioms)["choice_idiom_meaning"]
    fewer = choice_items(idioms, training=["请解释“甲子成语”。", "丁卯成语"])
    left = {item.context for item in fewer["choice_idiom_meaning"]}
    assert len(everything) - len(left) == 2
    assert not any("甲子" in context or "丁卯" in context for context in left)


def accuracy(model, items):
    return choice_measures(model, byte_tokenizer(), {"x": items})["x"]


def oracle(favourite):
    """A model that finds one byte likely everywhere."""
    model = CausalLM(tiny_config(max_position_embeddings=128)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.model.norm.weight.fill_(1.0)
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.model.embed_tokens.weight[byte_tokenizer().encode(favourite)[0], 0] = 3.0
    return model


def test_oracle_is_always_right_and_its_opposite_never():
    items = make_items([Entry(before="?", answer=f"{c * 6}{i}") for i, c in enumerate("abcdefgh")])
    right = [item for item in items if item.choices[item.answer].startswith("c")]
    others = [item for item in items if any(c.startswith("c") for c in item.choices)
              and not item.choices[item.answer].startswith("c")]  # fmt: skip
    assert accuracy(oracle("c"), right).value == 1
    assert accuracy(oracle("c"), others).value == 0


@torch.no_grad()
def log_prob(model, context, continuation):
    tokenizer = byte_tokenizer()
    before, after = tokenizer.encode(context), tokenizer.encode(continuation)
    ids = [tokenizer.endoftext_id, *before, *after]
    log_probs = model(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
    return float(log_probs[-len(after) :, :].gather(1, torch.tensor(after)[:, None]).sum())


def sharp(seed):
    torch.manual_seed(seed)
    model = CausalLM(tiny_config(max_position_embeddings=128)).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)
    return model


def test_score_is_the_likelihood_after_the_context_per_character():
    model = sharp(0)
    items = make_items(entries(24))
    hits = 0
    for item in items:
        scores = [log_prob(model, item.context, choice) / len(choice) for choice in item.choices]
        hits += scores.index(max(scores)) == item.answer
    assert accuracy(model, items).value == pytest.approx(hits / len(items))


def test_with_four_contexts_the_continuation_is_scored():
    model = sharp(1)
    items = make_items([Entry(before="《", answer=f"法{i}", after="》\n", scored=f"第{i % 3}条")
                        for i in range(24)])  # fmt: skip
    hits = 0
    for item in items:
        scored = item.extra["requests"][0][1]
        scores = [log_prob(model, f"《{law}》\n", scored) for law in item.choices]
        hits += scores.index(max(scores)) == item.answer
    assert accuracy(model, items).value == pytest.approx(hits / len(items))


def test_an_untrained_model_is_not_distinguishable_from_chance():
    torch.manual_seed(3)
    model = CausalLM(tiny_config(max_position_embeddings=128))
    generator = torch.Generator().manual_seed(0)
    random = [
        Entry(before="?", answer="".join(chr(0x4E00 + int(c)) for c in torch.randint(
            0, 8000, (5,), generator=generator)))
        for _ in range(200)
    ]  # fmt: skip
    measure = accuracy(model, make_items(random))
    assert measure.low < 0.25 < measure.high
    assert (measure.chance, measure.n) == (0.25, 200)
