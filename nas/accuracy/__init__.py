"""How good a candidate is: zero-cost proxy scores, short training, and scoring of the model file that ships."""
