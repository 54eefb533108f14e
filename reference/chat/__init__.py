"""The published chat templates and tokenizer, run through transformers: where the prompts of the fixtures come from.

The templates and the tokenizer are not part of this project; `gemma4-conformance fetch` finds them.
"""
