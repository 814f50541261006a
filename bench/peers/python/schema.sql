-- One unlogged table a route: rows are not written to the write-ahead log, which is the fastest that PostgreSQL stores.
CREATE UNLOGGED TABLE events_push (id text, type text, class text, repo text, hour text, body jsonb);
CREATE UNLOGGED TABLE events_watch (LIKE events_push);
CREATE UNLOGGED TABLE events_other (LIKE events_push);
CREATE VIEW events AS
	SELECT id, type FROM events_push UNION ALL SELECT id, type FROM events_watch UNION ALL SELECT id, type FROM events_other;
