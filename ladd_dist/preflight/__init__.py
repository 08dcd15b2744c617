"""The checks of `ladd doctor`: of the machine, and of the method on a recipe's own objects."""
