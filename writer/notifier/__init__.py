"""The notifier: watches, and tells administrators and authors when something cannot be saved."""
