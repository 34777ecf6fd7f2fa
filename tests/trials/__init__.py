"""The long trial of reads under faults: authors, faults, a record of every read, and its checker."""
