"""The application: what Flask's own first page shows."""
import os

import flask

app = flask.Flask(__name__)


@app.route("/")
def hello():
    return f"Hello from slot {os.environ['FERRICORN_SLOT']}\n"
