"""Reports: `sections` says it once, `terminal`, `markdown` and `html` lay it out; nothing is computed here."""
