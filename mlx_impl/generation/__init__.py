"""From logits to text: sampling, the loop of tokens, prompt caches."""
