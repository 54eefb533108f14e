"""The judge: a question, an answer, and the verdict on it. Imports nothing of ours but `gemma4_contract`."""
