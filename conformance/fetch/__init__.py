"""Published files that the project does not ship: the tokenizer and the chat templates, fetched and verified."""
