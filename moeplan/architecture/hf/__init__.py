"""Reading Hugging Face configurations: keys and their spellings, layer patterns, facts of model types."""
