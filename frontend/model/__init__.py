"""The model as plain torch that reads like the paper. Knows no ranks and no formats."""
