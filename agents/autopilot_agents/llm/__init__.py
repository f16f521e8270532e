"""The agent that asks a language model. Importing it loads no model's stack; asking does."""
