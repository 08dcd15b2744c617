"""What the commands share: errors as one message, a recipe on the command line, the console."""
