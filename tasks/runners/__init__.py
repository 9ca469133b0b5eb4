"""Where task bodies run: worker processes that hold a model, and the Prefect task runner that feeds them."""
