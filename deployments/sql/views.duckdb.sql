-- Views for DuckDB over the tables of a DEST: of each recording the newest row, each once, also while
-- `nightscribe compact` swaps parts and while both the old and the new ones are there.
--
--     SET VARIABLE dest = 's3://tables/calls';
--     .read deployments/sql/views.duckdb.sql
--     SELECT source_uri, text FROM latest_transcripts WHERE status = 'landed';
--
-- Set the variable in every session. A query that fails as a file has vanished met a compaction: run it again.
-- ingest_date is the partition that a row lies in now; compaction moves rows into the youngest of those that it merges.
-- What is new since yesterday is asked for by transcribed_at.

CREATE OR REPLACE VIEW latest_transcripts AS
SELECT *
FROM read_parquet(getvariable('dest') || '/transcripts/*/*.parquet', union_by_name = true)
QUALIFY row_number() OVER (
    PARTITION BY source_uri ORDER BY transcribed_at DESC, batch_id DESC, source_version DESC
) = 1;

-- While a run lands, a row's segments and words follow it by a moment; the column `segments` of its row has them at once.
-- The flat tables say which row of the transcripts they belong to; a part that is there twice counts once.
CREATE OR REPLACE VIEW latest_segments AS
SELECT *
FROM read_parquet(getvariable('dest') || '/segments/*/*.parquet', union_by_name = true) AS s
SEMI JOIN latest_transcripts USING (file_id, options_hash, batch_id)
QUALIFY row_number() OVER (PARTITION BY file_id, options_hash, batch_id, segment_id) = 1;

CREATE OR REPLACE VIEW latest_words AS
SELECT *
FROM read_parquet(getvariable('dest') || '/words/*/*.parquet', union_by_name = true) AS w
SEMI JOIN latest_transcripts USING (file_id, options_hash, batch_id)
QUALIFY row_number() OVER (PARTITION BY file_id, options_hash, batch_id, word_id) = 1;
