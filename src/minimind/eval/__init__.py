"""What a model can do, measured, and the report that tells it.

A measure is a function from (model, tokenizer, data) to a `Measure`: a value with its interval and
its n. Results go into `eval.json`, stage times into `stages.json` (shapes: `results.py`), and
`minimind.report` reads only those files. Nothing heavy is imported here: a report needs no torch.
"""
