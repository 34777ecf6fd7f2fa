"""What all pages for people share: who looks, what a form sends, templates, files, and headers."""
