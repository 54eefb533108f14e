"""Conversations: prompts, the tokenizer, and the parts of an answer."""
