"""Small sets of parameters beside a model's own: LoRA, DoRA, bottlenecks, prompts, prefixes.

All are pure functions over parameter trees; a model does not know of them. See ``interop.peft`` for
files of the PEFT library, and config.freeze for the layers of a model that stay as they are.
"""
