"""What people read. `sections` says it once; `terminal`, `markdown` and `html` only lay it out; nothing is computed here."""
