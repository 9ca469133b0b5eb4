-- The tables of a DEST for Trino with its Hive connector, and of each recording the newest row. Put your DEST for
-- s3://tables/calls, and your catalog and schema for hive.calls. Where hive.timestamp-precision is not MILLISECONDS, its
-- default, change timestamp(3) to it. After each run: CALL hive.system.sync_partition_metadata('calls', TABLE, 'ADD');
-- after a compaction with 'FULL'.

CREATE TABLE hive.calls.transcripts (
    source_uri varchar,
    source_version varchar,
    options_hash varchar,
    file_id varchar,
    batch_id varchar,
    transcribed_at timestamp(3),
    status varchar,
    error_type varchar,
    error_message varchar,
    warnings array(varchar),
    attempts integer,
    duration_s double,
    speech_s double,
    covered_s double,
    channels integer,
    sample_rate_hz integer,
    codec varchar,
    size_bytes bigint,
    modified_at timestamp(3),
    content_sha256 varchar,
    language varchar,
    language_probability double,
    text varchar,
    segments array(row(segment_id integer, channel integer, start_s double, end_s double, text varchar, avg_logprob double, no_speech_prob double, compression_ratio double, temperature double, flags array(varchar), words array(row(word varchar, start_s double, end_s double, probability double)))),
    labels map(varchar, varchar),
    model varchar,
    backend varchar,
    compute_type varchar,
    engine_version varchar,
    schema_version integer,
    run_id varchar,
    processing_s double,
    ingest_date date
)
WITH (
    external_location = 's3://tables/calls/transcripts/',
    format = 'PARQUET',
    partitioned_by = ARRAY['ingest_date']
);

CREATE TABLE hive.calls.segments (
    source_uri varchar,
    source_version varchar,
    options_hash varchar,
    file_id varchar,
    batch_id varchar,
    transcribed_at timestamp(3),
    segment_id integer,
    channel integer,
    start_s double,
    end_s double,
    text varchar,
    avg_logprob double,
    no_speech_prob double,
    compression_ratio double,
    temperature double,
    flags array(varchar),
    ingest_date date
)
WITH (
    external_location = 's3://tables/calls/segments/',
    format = 'PARQUET',
    partitioned_by = ARRAY['ingest_date']
);

CREATE TABLE hive.calls.words (
    source_uri varchar,
    source_version varchar,
    options_hash varchar,
    file_id varchar,
    batch_id varchar,
    transcribed_at timestamp(3),
    segment_id integer,
    channel integer,
    word_id integer,
    word varchar,
    start_s double,
    end_s double,
    probability double,
    ingest_date date
)
WITH (
    external_location = 's3://tables/calls/words/',
    format = 'PARQUET',
    partitioned_by = ARRAY['ingest_date']
);

-- Each recording once, the newest row, also while `nightscribe compact` swaps parts.
CREATE VIEW hive.calls.latest_transcripts AS
SELECT * FROM (
    SELECT *, row_number() OVER (
        PARTITION BY source_uri ORDER BY transcribed_at DESC, batch_id DESC, source_version DESC
    ) AS newest
    FROM hive.calls.transcripts
)
WHERE newest = 1;

CREATE VIEW hive.calls.latest_segments AS
SELECT * FROM (
    SELECT s.*, row_number() OVER (PARTITION BY s.file_id, s.options_hash, s.batch_id, s.segment_id) AS newest
    FROM hive.calls.segments s
    JOIN hive.calls.latest_transcripts t
        ON s.file_id = t.file_id AND s.options_hash = t.options_hash AND s.batch_id = t.batch_id
)
WHERE newest = 1;

CREATE VIEW hive.calls.latest_words AS
SELECT * FROM (
    SELECT w.*, row_number() OVER (PARTITION BY w.file_id, w.options_hash, w.batch_id, w.word_id) AS newest
    FROM hive.calls.words w
    JOIN hive.calls.latest_transcripts t
        ON w.file_id = t.file_id AND w.options_hash = t.options_hash AND w.batch_id = t.batch_id
)
WHERE newest = 1;
