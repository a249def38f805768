"""Watch: tells people and machines how everything is, and when it is not well."""
