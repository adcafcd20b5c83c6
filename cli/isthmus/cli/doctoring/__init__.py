"""What `isthmus doctor` looks at: a module for each group. `facts` gathers and `findings` judges, which is pure."""
