"""Fetches and verifies published files that the project does not ship: the tokenizer and the chat templates."""
