"""The page as static files, which answer in the visitor's own browser."""
