"""Text to tokens and back: tokenizer, chat templates, fill in the middle."""
