"""The workflows for users, run with act in a repository that `init` made."""
