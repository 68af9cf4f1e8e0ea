"""The embedded base model, the pictures it was taught with, and the ruler that grades what it draws."""
