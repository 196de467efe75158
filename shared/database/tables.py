"""The database tables. Times are Unix milliseconds, and money is whole pico-USD (1e-12 USD).

Whole numbers are exact in both databases, sort and add up without conversion. JSON is text, because
PostgreSQL's JSON types refuse the NUL characters that prompts may hold.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

#: One row per job: what the caller wants, how it stands, and its result until that expires.
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("priority", String(16), nullable=False),
    Column("model_class", String(64), nullable=False),
    Column("model", String(128), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("user_id", String(128)),
    Column("batch_id", String(64)),
    Column("batch_line", Integer),
    Column("custom_id", Text),
    Column("envelope", Text, comment="JSON; emptied with the result"),
    Column("result", Text, comment="JSON of the result, from its end until it expires"),
    Column(
        "fence", Integer, nullable=False, server_default="0", comment="number of the last claim"
    ),
    Column("worker", String(128), comment="who holds the last claim"),
    Column("cancel_wanted", Boolean, nullable=False, server_default=text("false")),
    Column("retry_at_ms", BigInteger, comment="while deferred: when it goes back to its queue"),
    Column("submitted_at_ms", BigInteger, nullable=False),
    Column("deadline_at_ms", BigInteger, nullable=False),
    Column("started_at_ms", BigInteger, comment="the first claim"),
    Column("finished_at_ms", BigInteger),
    Column("share_pico_usd", BigInteger, comment="its part of the call of an equal job"),
    Column("key_id", String(32), comment="the gateway key that it came with"),
)
Index("jobs_open", jobs.c.status, jobs.c.id)
Index("jobs_by_batch", jobs.c.batch_id, jobs.c.batch_line, unique=True)
Index("jobs_by_time", jobs.c.submitted_at_ms)
Index("jobs_finished", jobs.c.batch_id, jobs.c.finished_at_ms)
Index(
    "jobs_to_shed",
    jobs.c.finished_at_ms,
    sqlite_where=jobs.c.envelope.is_not(None),
    postgresql_where=jobs.c.envelope.is_not(None),
)

#: The ledger: one row per attempt, opened before the request is sent and settled after it.
attempts = Table(
    "attempts",
    metadata,
    Column("job_id", String(128), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("n", Integer, nullable=False, comment="1 for the first attempt under this claim"),
    Column("model", String(128), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("state", String(16), nullable=False, comment="open, answered, failed, unknown"),
    Column("code", String(32), comment="the error's code"),
    Column("message", Text, comment="the error's message; never holds a key or a prompt"),
    Column("http_status", Integer),
    Column("request_id", String(256), comment="the provider's own"),
    Column("started_at_ms", BigInteger, nullable=False),
    Column("settled_at_ms", BigInteger),
    Column("waited_ms", BigInteger, nullable=False, comment="for buckets and backoff before it"),
    Column("latency_ms", BigInteger),
    Column("input_tokens", BigInteger, nullable=False, server_default="0"),
    Column("cached_input_tokens", BigInteger, nullable=False, server_default="0"),
    Column("cache_write_tokens", BigInteger, nullable=False, server_default="0"),
    Column("output_tokens", BigInteger, nullable=False, server_default="0"),
    Column("reasoning_tokens", BigInteger, nullable=False, server_default="0"),
    Column("cost_pico_usd", BigInteger, comment="null: no price known, or the attempt is unknown"),
    PrimaryKeyConstraint("job_id", "fence", "n"),
)

#: The audit lines: one per ended job, without prompt and answer.
audit = Table(
    "audit",
    metadata,
    Column("job_id", String(128), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("error_code", String(32)),
    Column("priority", String(16), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("user_id", String(128)),
    Column("batch_id", String(64)),
    Column("model", String(128), nullable=False),
    Column("model_used", String(128)),
    Column("provider", String(64)),
    Column("cached", String(16)),
    Column("fallback", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("unknown_attempts", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cost_pico_usd", BigInteger, comment="of all attempts; null where a price is not known"),
    Column("saved_pico_usd", BigInteger, comment="what the cache's answer cost when it was bought"),
    Column("submitted_at_ms", BigInteger, nullable=False),
    Column("started_at_ms", BigInteger),
    Column("finished_at_ms", BigInteger, nullable=False),
    Column("queued_ms", BigInteger),
    Column("latency_ms", BigInteger),
    Column("template", String(128)),
    Column("latency_bin", Integer, comment="bucket of latency_ms in shared/stats/sketch.py"),
    Column("key_id", String(32), comment="the gateway key that the job came with"),
)
Index("audit_by_batch", audit.c.batch_id)
Index("audit_by_time", audit.c.finished_at_ms)

#: Plain values of the metadata of jobs, by which lists find jobs. They go with their jobs.
job_metadata = Table(
    "job_metadata",
    metadata,
    Column("key", String(128), nullable=False),
    Column("value", String(256), nullable=False, comment="a text, a number, true or false"),
    Column("job_id", String(128), nullable=False),
    PrimaryKeyConstraint("key", "value", "job_id"),
)
Index("job_metadata_by_job", job_metadata.c.job_id)

#: One row per batch: an input file whose lines were submitted as jobs.
batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("input_path", Text, nullable=False),
    Column("input_sha256", String(64), nullable=False),
    Column("output_path", Text),
    Column(
        "defaults", Text, nullable=False, comment="JSON of the submit fields given for all lines"
    ),
    Column("lines", Integer, nullable=False, comment="lines that hold a request, good or bad"),
    Column("bad_lines", Integer, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("submitted_at_ms", BigInteger, comment="when the last line was queued"),
    Column("cancelled_at_ms", BigInteger),
)
Index("batches_by_output", batches.c.output_path)

#: Ended jobs with Celery callbacks that may not have been sent. A row goes once they are sent.
callbacks = Table(
    "callbacks",
    metadata,
    Column("job_id", String(128), primary_key=True),
    Column("due_at_ms", BigInteger, nullable=False, comment="from then on maintenance sends them"),
)
Index("callbacks_due", callbacks.c.due_at_ms)

#: The webhook of each tenant that has one, and the secret that signs all events of the tenant.
webhook_tenants = Table(
    "webhook_tenants",
    metadata,
    Column("tenant", String(128), primary_key=True),
    Column("url", Text, comment="null: only requests and batches that name a URL make events"),
    Column("events", Text, comment="JSON list of events that the URL gets; null: all"),
    Column("secret", String(128), nullable=False, comment="whsec_ and base64"),
    Column("previous_secret", String(128), comment="the secret before the last rotation"),
    Column("previous_until_ms", BigInteger, comment="until when it signs, too"),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("disabled_at_ms", BigInteger, comment="when the URL answered 410"),
)

#: Events of webhooks, from the end of their jobs until they are pruned.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String(64), primary_key=True, comment="the webhook-id of all its attempts"),
    Column("tenant", String(128), nullable=False),
    Column("event", String(64), nullable=False, comment="empty while the batch has not ended"),
    Column("job_id", String(128)),
    Column("batch_id", String(64)),
    Column("url", Text, comment="null: the tenant's at the time of the attempt"),
    Column("body", Text, nullable=False, comment="JSON, without prompt and answer"),
    Column("state", String(16), nullable=False, comment="waiting, pending, delivered, ..."),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("http_status", Integer, comment="of the last attempt"),
    Column("error", String(256), comment="why the last attempt failed"),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("due_at_ms", BigInteger, comment="when it is tried next; null: not any more"),
    Column("until_ms", BigInteger, nullable=False, comment="when it is given up"),
    Column("tried_at_ms", BigInteger, comment="the last attempt"),
    Column("ended_at_ms", BigInteger, comment="when it was delivered or given up"),
)
Index(
    "webhook_deliveries_due",
    webhook_deliveries.c.due_at_ms,
    sqlite_where=webhook_deliveries.c.due_at_ms.is_not(None),
    postgresql_where=webhook_deliveries.c.due_at_ms.is_not(None),
)
Index("webhook_deliveries_by_time", webhook_deliveries.c.created_at_ms)
Index("webhook_deliveries_by_job", webhook_deliveries.c.job_id)

#: Tiers of callers, written by an operator, and read if HEADGATE_TIERS is `table`.
callers = Table(
    "callers",
    metadata,
    Column("tenant", String(128), nullable=False),
    Column(
        "user_id",
        String(128),
        nullable=False,
        server_default=text("''"),
        comment="empty: every user of the tenant without a row of its own",
    ),
    Column("tier", String(128), nullable=False),
    PrimaryKeyConstraint("tenant", "user_id"),
)

#: Keys of the gateway's callers. A secret is not stored, only its SHA-256.
gateway_keys = Table(
    "gateway_keys",
    metadata,
    Column("id", String(32), primary_key=True, comment="names the key; not secret"),
    Column("name", String(128), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("user_id", String(128)),
    Column("any_user", Boolean, nullable=False, comment="each call may name its user"),
    Column("any_tenant", Boolean, nullable=False, comment="each call may name its tenant"),
    Column("tier", String(128)),
    Column("scopes", Text, nullable=False, comment="JSON list of what the key may do"),
    Column("models", Text, comment="JSON list of the models that it may name; null: all"),
    Column("rpm", BigInteger, comment="calls a minute with this key"),
    Column("tpm", BigInteger, comment="tokens a minute with this key"),
    Column("budget_usd", String(32), comment="what it may spend in a period"),
    Column("budget_period", String(8), comment="day or month"),
    Column("origins", Text, nullable=False, comment="JSON list of web pages that may use it"),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    Column("secret_sha256", String(64), nullable=False),
    Column("previous_sha256", String(64), comment="of the secret before the last rotation"),
    Column("previous_until_ms", BigInteger, comment="until when the secret before is accepted"),
)
Index("gateway_keys_by_secret", gateway_keys.c.secret_sha256, unique=True)
Index("gateway_keys_by_previous", gateway_keys.c.previous_sha256)

KEY_KEPT_MS = 24 * 3_600_000
"""How long an idempotency key belongs to its job; after that it may be used again."""

#: The job of each idempotency key.
idempotency = Table(
    "idempotency",
    metadata,
    Column("tenant", String(128), nullable=False),
    Column("key", String(255), nullable=False),
    Column("body_sha256", String(64), nullable=False),
    Column("job_id", String(128), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "key"),
)
Index("idempotency_by_time", idempotency.c.created_at_ms)

#: The roll-up: the usage of a UTC day, summed from its audit lines; an empty text means none.
#: Higher numbers than those of days are sums of months and of today so far (usage_blocks.py).
usage_days = Table(
    "usage_days",
    metadata,
    Column("day", Integer, nullable=False, comment="20261121"),
    Column("tenant", String(128), nullable=False),
    Column("user_id", String(128), nullable=False),
    Column("model", String(128), nullable=False, comment="the one that answered, or was asked for"),
    Column("template", String(128), nullable=False),
    Column("batch_id", String(64), nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("succeeded", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("cancelled", BigInteger, nullable=False),
    Column("expired", BigInteger, nullable=False),
    Column("cached", BigInteger, nullable=False, comment="answered by the cache"),
    Column("shared", BigInteger, nullable=False, comment="answered by an equal request's call"),
    Column("fallbacks", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("unknown_attempts", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cost_pico_usd", BigInteger, nullable=False),
    Column("unpriced", BigInteger, nullable=False, comment="jobs whose cost nobody knows"),
    Column("saved_pico_usd", BigInteger, nullable=False),
    Column("latency_ms", BigInteger, nullable=False, comment="of all together"),
    Column("latencies", LargeBinary, nullable=False, comment="a packed sketch"),
    PrimaryKeyConstraint("day", "tenant", "user_id", "model", "template", "batch_id"),
)

#: The days that are in `usage_days`, with the number of their audit lines at that time. Below zero
#: it is the number of a part of the day, which ends at `summed_at_ms`.
usage_summed = Table(
    "usage_summed",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("lines", BigInteger, nullable=False),
    Column("summed_at_ms", BigInteger, nullable=False),
)

#: The id of this database: one row, written at its first use. Redis stores it, too.
database_id = Table(
    "database_id",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False, comment="always 1"),
    Column("id", String(36), nullable=False),
)
