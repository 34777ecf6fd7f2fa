"""The subcommands of `afterwrite`, one module each; `deploy.cli` lists them."""
