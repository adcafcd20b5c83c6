"""What a decision rests on: how likely each answer is to be right, given what the exits have said."""
