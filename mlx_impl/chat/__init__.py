"""Conversations: prompts, tokenizer, and what an answer says."""
