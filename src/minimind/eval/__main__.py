"""`python -m minimind.eval ...`: lm-evaluation-harness's own command with our model in it.

    python -m minimind.eval --model minimind --model_args pretrained=DIRECTORY --tasks arc_easy

Takes what `lm_eval` takes. lm-eval 0.4.13 has no way for another package to register a model; later
releases may find ours by its entry point (their pull request 4013; untried: none is out here).
"""

from minimind.errors import require


def main() -> None:
    """Register the model and run lm-eval's command."""
    require("lm_eval", extra="eval")
    require("minimind.eval.lm_eval_model", extra="eval")
    require("lm_eval.__main__", extra="eval").cli_evaluate()


if __name__ == "__main__":
    main()
