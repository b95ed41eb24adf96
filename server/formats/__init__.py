"""Forms of chats: prompts that models were trained on, and what their answers mean.

Know no HTTP, no tokens and no engine.
"""
