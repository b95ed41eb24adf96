"""How the small trained model is made: data, tokenizer, trainer, evaluation. Serves nothing."""
