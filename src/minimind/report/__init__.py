"""The report of a run, made by reading what runs left on disk: Markdown, HTML, the terminal.

    read.py      a directory  -> Run               sections.py, training.py ...  Run -> blocks
    blocks.py    blocks -> Markdown, terminal      page.py                       blocks -> HTML
    charts.py    what is drawn                     svg.py                        charts -> SVG

Nothing here measures and no stage calls it. Nothing heavy is imported: a report needs no torch.
"""
