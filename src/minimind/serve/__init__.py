"""An OpenAI-compatible server: HTTP, text and tools around an `inference.backend.Backend`.

Nothing here is imported by the rest of the package, and nothing here is imported before
`minimind serve` asked for it: the packages are those of the extra `serve`.
"""
