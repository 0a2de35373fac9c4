"""Models of other makers, read into ours: a Hugging Face directory or a GGUF file.

Qwen3, Qwen2 and Llama shapes become a checkpoint directory like any other, with the tokenizer, chat
template and stop tokens that they were trained with.
"""

from minimind.importing.convert import Imported, import_model

__all__ = ["Imported", "import_model"]
