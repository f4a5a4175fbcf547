"""Short proxy runs that measure the leverage: model, data, training, ladder, estimate. Only this imports torch."""
