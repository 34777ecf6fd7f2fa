"""The forum in a browser: pages rendered here, of the same services that answer the JSON API.

sign in → read a page → send a change → see it at once → hear what became of it
"""
