"""The chat page: Gradio in front of any server that speaks OpenAI's protocol, ours first.

Nothing here knows a model, a tokenizer or torch; what the page shows came over HTTP. The packages
are those of the extra `ui`.
"""
