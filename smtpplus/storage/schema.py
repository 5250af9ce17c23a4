"""The tables, once for SQLite and PostgreSQL. Migrations (storage/migrations) build what is described here; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"})
Identity = BigInteger().with_variant(Integer, "sqlite")  # 64 bits on both; SQLite's own row id

RECEIVING, QUEUED = 0, 1  # messages.state: RECEIVING rows belong to nobody after a restart

users = Table(
    "users",
    metadata,
    Column("id", Identity, primary_key=True),
    Column("name", Text, nullable=False, unique=True),  # lower case
    Column("list", Text, nullable=False, server_default="default"),
    Column("password", Text, nullable=False),  # argon2id, PHC string
    Column("active", Boolean, nullable=False, server_default=text("true")),
    Column("note", Text, nullable=False, server_default=""),
    Column("allow_any", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("scram", Text),  # SCRAM-SHA-256 verifier as RFC 5803 writes it; NULL: the password was hashed elsewhere
    Column("settings", Text, nullable=False, server_default="{}"),  # JSON of accounts.settings.Settings
)

lists = Table(
    "lists",
    metadata,
    Column("name", Text, primary_key=True),  # lower case; "default" is always there
    Column("note", Text, nullable=False, server_default=""),
    Column("settings", Text, nullable=False, server_default="{}"),  # as of users
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
)

senders = Table(
    "senders",
    metadata,
    Column("id", Identity, primary_key=True),
    Column("user_id", Identity, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),  # address | domain | subtree
    Column("value", Text, nullable=False),  # Mailbox.key, or a normalized domain
    Column("verified", Boolean, nullable=False, server_default=text("false")),
    Column("provenance", Text, nullable=False, server_default=""),  # token | dns | vouched | grandfathered
    Column("verified_at", Float),
    Column("created_at", Float, nullable=False),
    Column("verified_by", Text, nullable=False, server_default=""),  # who did it: "root at the command line", "web 192.0.2.1"
    UniqueConstraint("user_id", "kind", "value"),
    Index(None, "value"),
)

would_refuse = Table(  # what alert mode let through, added up
    "would_refuse",
    metadata,
    Column("user", Text, primary_key=True),
    Column("sender", Text, primary_key=True),  # the address that is not authorized, as written
    Column("reason", Text, primary_key=True),  # code of mail.reasons
    Column("reply", Text, nullable=False),  # the last one
    Column("count", Identity, nullable=False),
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False),
)

verifications = Table(  # tokens mailed to addresses
    "verifications",
    metadata,
    Column("id", Identity, primary_key=True),
    Column("user_id", Identity, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("kind", Text, nullable=False),  # this and the next: an entry of `senders`, which may be gone in the meantime
    Column("value", Text, nullable=False),
    Column("token", Text, nullable=False, unique=True),  # SHA-256 in hexadecimal; the token itself is in the mail alone
    Column("created_at", Float, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("used_at", Float),
    Column("revoked_at", Float),
)

challenges = Table(  # what a domain's DNS must say for the users of one list
    "challenges",
    metadata,
    Column("list", Text, primary_key=True),
    Column("domain", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)

outbox = Table(  # messages of other processes, on their way into the queue
    "outbox",
    metadata,
    Column("id", Identity, primary_key=True),
    Column("sender", Text, nullable=False),
    Column("recipients", Text, nullable=False),  # JSON: addresses
    Column("level", SmallInteger, nullable=False),
    Column("smtputf8", Boolean, nullable=False),
    Column("posted_at", Float, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

generation = Table(
    "generation",
    metadata,
    Column("name", Text, primary_key=True),  # "accounts": raised by every change of users, senders and lists; "queue": of rules and changes
    Column("number", Identity, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Identity, primary_key=True, autoincrement=False),
    Column("state", SmallInteger, nullable=False),
    Column("sender", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("level", SmallInteger, nullable=False),
    Column("size", Identity, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("parameters", Text),  # JSON of what few messages have: body, smtputf8, ret, envid
    Column("content", LargeBinary),  # the first chunk; NULL: all of them are in a file (storage.files)
)
# Rows of messages are as large as their content: whoever looks for something among many must not read them. What is half received
# is found by an index that nothing else is in, and what waits is found in the recipients.
Index("ix_messages_receiving", messages.c.id, sqlite_where=messages.c.state == RECEIVING, postgresql_where=messages.c.state == RECEIVING)

chunks = Table(
    "chunks",
    metadata,
    Column("message_id", Identity, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1..; 0 is messages.content
    Column("octets", LargeBinary, nullable=False),
)

recipients = Table(
    "recipients",
    metadata,
    Column("message_id", Identity, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("address", Text, nullable=False),
    Column("level", SmallInteger, nullable=False),  # of its message, as is the user: the queue is read from this table alone
    Column("user", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", Float, nullable=False),  # the next attempt; already in the future while one is under way
    Column("parameters", Text),  # JSON: notify, orcpt
    Column("reply", Text),  # what was said at the last attempt
    Column("warned", Boolean, nullable=False, server_default=text("false")),
    Column("list", Text, nullable=False, server_default="default"),  # the user's, at acceptance
    Column("sender_domain", Text, nullable=False, server_default=""),  # of the reverse-path, normalized
    sqlite_with_rowid=False,
)
Index("ix_recipients_urgent", recipients.c.message_id, sqlite_where=recipients.c.level <= 2, postgresql_where=recipients.c.level <= 2)

rules = Table(  # holds and pauses: queue.rules says what they mean
    "rules",
    metadata,
    Column("id", Identity, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("running", Text, nullable=False),  # what happens to running transfers: stop | finish
    Column("reason", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),  # 0: never
    Column("keep_expiry", Boolean, nullable=False),  # time on hold counts toward the lifetime all the same
    Column("lifted_at", Float, nullable=False, server_default=text("0")),  # 0: in force until it expires
    Column("lifted_by", Text, nullable=False, server_default=""),
)

changes = Table(  # what another process did to recipients, until the daemon has taken note
    "changes",
    metadata,
    Column("id", Identity, primary_key=True),
    Column("message_id", Identity, nullable=False),
    Column("number", Integer, nullable=False),
    Column("address", Text, nullable=False),
    Column("what", Text, nullable=False),  # cancelled | moved | retried
    Column("who", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False, server_default="0"),  # when
    Column("due", Float, nullable=False, server_default="0"),  # for when it was moved
    sqlite_autoincrement=True,  # an id is never given twice: they are read and deleted in their order
)

dkim_keys = Table(  # the private keys are in the clear: whoever reads the database (mode 0600) could read a key to them as well
    "dkim_keys",
    metadata,
    Column("id", Identity, primary_key=True),
    Column("domain", Text, nullable=False),  # of From, normalized
    Column("selector", Text, nullable=False),
    Column("algorithm", Text, nullable=False),  # rsa | ed25519
    Column("private_key", Text, nullable=False),  # PKCS #8, PEM
    Column("active", Boolean, nullable=False),  # whether it signs; only the newest active one of each algorithm does
    Column("created_at", Float, nullable=False),
    UniqueConstraint("domain", "selector"),
)

status = Table(  # what only the daemon's memory knows, written at most once a second
    "status",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),  # JSON
    Column("at", Float, nullable=False),
)

history = Table(  # what became of each message: one row when it is accepted, with all that happens within the same batch
    "history",
    metadata,
    Column("id", Identity, primary_key=True, autoincrement=False),  # the message's, which grows with time
    Column("at", Float, nullable=False),
    Column("user", Text, nullable=False),
    Column("list", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("recipients", Text, nullable=False),  # JSON: addresses
    Column("level", SmallInteger, nullable=False),
    Column("size", Identity, nullable=False),
    Column("session", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("message_id", Text, nullable=False),  # of the header
    Column("subject", Text, nullable=False),
    Column("campaign", Text, nullable=False),
    Column("story", Text, nullable=False),  # see observation.story
)

history_steps = Table(  # what happened to it later, a row for each batch
    "history_steps",
    metadata,
    Column("message_id", Identity, primary_key=True, autoincrement=False),
    Column("number", Identity, primary_key=True, autoincrement=False),  # microseconds since the epoch
    Column("story", Text, nullable=False),
    sqlite_with_rowid=False,
)

message_ids = Table(  # which messages may have a Message-ID: one row for each batch, as an index would cost a page for each message
    "message_ids",
    metadata,
    Column("first", Identity, primary_key=True, autoincrement=False),  # this and the next: the least and the greatest id in it
    Column("last", Identity, nullable=False),
    Column("marks", LargeBinary, nullable=False),  # see observation.marks
)

refusals = Table(
    "refusals",
    metadata,
    Column("id", Identity, primary_key=True, autoincrement=False),  # the reference in the reply, as a number like that of a message
    Column("at", Float, nullable=False),
    Column("session", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("reason", Text, nullable=False),  # code of mail.reasons, the true one
    Column("reply", Text, nullable=False),
    Column("count", Identity, nullable=False),  # more than 1 under a storm, when equal ones share a row
)

problems = Table(  # what alerts are about; observation.alerts
    "problems",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("list", Text, primary_key=True),  # "" where it concerns the server
    Column("what", Text, primary_key=True),
    Column("count", Identity, nullable=False),
    Column("told", Identity, nullable=False),  # how many of these were reported
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False),
    Column("told_at", Float, nullable=False),  # 0: not reported yet
    Column("facts", Text, nullable=False),  # JSON
)

alert_settings = Table(
    "alert_settings",
    metadata,
    Column("list", Text, primary_key=True),  # "" for the server
    Column("kind", Text, primary_key=True),  # "*" for all kinds
    Column("value", Text, nullable=False),  # off | now | digest
)

webhook_posts = Table(  # what the webhook is owed; observation.owed
    "webhook_posts",
    metadata,
    Column("id", Identity, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("tried", Integer, nullable=False),
    Column("due", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    sqlite_autoincrement=True,
)

sums = Table(  # what is left of days whose history is gone; observation.sums
    "sums",
    metadata,
    Column("day", Text, primary_key=True),  # of acceptance or refusal, local: 2026-11-21
    Column("list", Text, primary_key=True),
    Column("user", Text, primary_key=True),
    Column("level", SmallInteger, primary_key=True),  # 0 for refusals
    *(
        Column(name, Identity, nullable=False)
        for name in ("messages", "recipients", "octets", "delivered", "deferred", "failed", "cancelled", "refused")
    ),
)
