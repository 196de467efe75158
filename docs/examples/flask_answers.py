"""Flask: submit in one request, and read the answer in a later one.

    pip install flask
    flask --app flask_answers run

A short answer comes at once. For a longer one the caller asks again at the address in `Location`.
"""

from __future__ import annotations

from flask import Flask, Response, jsonify, request, url_for

from headgate import Client, InvalidRequest, JobTimeout, UnknownJob, Unreachable

app = Flask(__name__)
client = Client()  # it opens its connections at the first use, so servers may fork before

Answer = tuple[Response, int]


@app.post("/questions")
def ask() -> Answer:
    """Submit a question; answer as `answer` does."""
    job = client.submit(request.get_json()["question"], priority="interactive", deadline_s=60)
    return answer(job.id)


@app.get("/questions/<job_id>")
def answer(job_id: str) -> Answer:
    """Answer within five seconds: with the answer, or with 202 while there is none."""
    try:
        result = client.result(job_id, timeout_s=5)
    except JobTimeout:
        waiting = jsonify(id=job_id)
        waiting.headers["Location"] = url_for("answer", job_id=job_id)
        return waiting, 202
    if result.error is not None:
        return jsonify(error=result.error.code), 502
    return jsonify(id=job_id, answer=result.content), 200


@app.errorhandler(InvalidRequest)
def wrong(error: InvalidRequest) -> Answer:
    """Say what is wrong with a question."""
    return jsonify(error=str(error)), 422


@app.errorhandler(UnknownJob)
def unknown(error: UnknownJob) -> Answer:
    """Say that there is no such question."""
    return jsonify(error=str(error)), 404


@app.errorhandler(Unreachable)
def away(error: Unreachable) -> Answer:
    """Say that a server is away for a moment."""
    return jsonify(error="try again in a moment"), 503
