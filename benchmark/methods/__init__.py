"""The contestants: each fits on a fold's training wells and predicts its test wells."""
