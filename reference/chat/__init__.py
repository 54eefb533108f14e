"""Runs the published chat templates and tokenizer in transformers: the source of the prompts of the fixtures.

The templates and the tokenizer are not part of this project; `gemma4-conformance fetch` finds them.
"""
