"""From logits to tokens: sampling, the loop of generation, prompt caches."""
