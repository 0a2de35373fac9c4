"""A mixture of experts behind the page: the same answers as the dense model that it was made of."""

from ui_doubles import ME, WHO, PagesBehind, need, serving

import minimind
from minimind import checkpoint
from minimind.config import MoEConfig
from minimind.model.upcycle import upcycle
from minimind.serve.loading import Loader, LoadSettings

COPIES = MoEConfig(num_experts=4, moe_intermediate_size=128)


def test_a_mixture_answers_on_the_page(chatty_dir, chromium, tmp_path):
    need("gradio", "httpx")
    model, tokenizer = minimind.load(chatty_dir)
    mixture = upcycle(model, COPIES)
    path = checkpoint.save(tmp_path / "mixture", model=mixture.eval(), tokenizer=tokenizer)
    registry = Loader(LoadSettings(slots=2)).load([f"mixture={path}"], [])
    with (
        serving(registry) as server,
        PagesBehind(server.url, chromium) as pages,
        pages.open() as shown,
    ):
        assert shown.ask(WHO) == ME
        assert "token" in shown.figures()
