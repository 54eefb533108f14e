"""Prompt bytes and ids: the questions about chat format and tokenizer, and their judge."""
