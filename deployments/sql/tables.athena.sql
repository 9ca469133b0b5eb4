-- The tables of a DEST for Athena, and of each recording the newest row. Statements one by one; put your DEST for
-- s3://tables/calls, and the day of its first run for 2026-01-01. Nothing has to be told of new days: the partitions
-- are computed. Athena reads times to the millisecond.

CREATE EXTERNAL TABLE transcripts (
    `source_uri` string,
    `source_version` string,
    `options_hash` string,
    `file_id` string,
    `batch_id` string,
    `transcribed_at` timestamp,
    `status` string,
    `error_type` string,
    `error_message` string,
    `warnings` array<string>,
    `attempts` int,
    `duration_s` double,
    `speech_s` double,
    `covered_s` double,
    `channels` int,
    `sample_rate_hz` int,
    `codec` string,
    `size_bytes` bigint,
    `modified_at` timestamp,
    `content_sha256` string,
    `language` string,
    `language_probability` double,
    `text` string,
    `segments` array<struct<segment_id:int,channel:int,start_s:double,end_s:double,text:string,avg_logprob:double,no_speech_prob:double,compression_ratio:double,temperature:double,flags:array<string>,words:array<struct<word:string,start_s:double,end_s:double,probability:double>>>>,
    `labels` map<string,string>,
    `model` string,
    `backend` string,
    `compute_type` string,
    `engine_version` string,
    `schema_version` int,
    `run_id` string,
    `processing_s` double
)
PARTITIONED BY (`ingest_date` date)
STORED AS PARQUET
LOCATION 's3://tables/calls/transcripts/'
TBLPROPERTIES (
    'projection.enabled' = 'true',
    'projection.ingest_date.type' = 'date',
    'projection.ingest_date.format' = 'yyyy-MM-dd',
    'projection.ingest_date.range' = '2026-01-01,NOW',
    'storage.location.template' = 's3://tables/calls/transcripts/ingest_date=${ingest_date}/'
);

CREATE EXTERNAL TABLE segments (
    `source_uri` string,
    `source_version` string,
    `options_hash` string,
    `file_id` string,
    `batch_id` string,
    `transcribed_at` timestamp,
    `segment_id` int,
    `channel` int,
    `start_s` double,
    `end_s` double,
    `text` string,
    `avg_logprob` double,
    `no_speech_prob` double,
    `compression_ratio` double,
    `temperature` double,
    `flags` array<string>
)
PARTITIONED BY (`ingest_date` date)
STORED AS PARQUET
LOCATION 's3://tables/calls/segments/'
TBLPROPERTIES (
    'projection.enabled' = 'true',
    'projection.ingest_date.type' = 'date',
    'projection.ingest_date.format' = 'yyyy-MM-dd',
    'projection.ingest_date.range' = '2026-01-01,NOW',
    'storage.location.template' = 's3://tables/calls/segments/ingest_date=${ingest_date}/'
);

CREATE EXTERNAL TABLE words (
    `source_uri` string,
    `source_version` string,
    `options_hash` string,
    `file_id` string,
    `batch_id` string,
    `transcribed_at` timestamp,
    `segment_id` int,
    `channel` int,
    `word_id` int,
    `word` string,
    `start_s` double,
    `end_s` double,
    `probability` double
)
PARTITIONED BY (`ingest_date` date)
STORED AS PARQUET
LOCATION 's3://tables/calls/words/'
TBLPROPERTIES (
    'projection.enabled' = 'true',
    'projection.ingest_date.type' = 'date',
    'projection.ingest_date.format' = 'yyyy-MM-dd',
    'projection.ingest_date.range' = '2026-01-01,NOW',
    'storage.location.template' = 's3://tables/calls/words/ingest_date=${ingest_date}/'
);

-- Each recording once, the newest row, also while `nightscribe compact` swaps parts.
CREATE VIEW latest_transcripts AS
SELECT * FROM (
    SELECT *, row_number() OVER (
        PARTITION BY source_uri ORDER BY transcribed_at DESC, batch_id DESC, source_version DESC
    ) AS newest
    FROM transcripts
)
WHERE newest = 1;

CREATE VIEW latest_segments AS
SELECT * FROM (
    SELECT s.*, row_number() OVER (PARTITION BY s.file_id, s.options_hash, s.batch_id, s.segment_id) AS newest
    FROM segments s
    JOIN latest_transcripts t
        ON s.file_id = t.file_id AND s.options_hash = t.options_hash AND s.batch_id = t.batch_id
)
WHERE newest = 1;

CREATE VIEW latest_words AS
SELECT * FROM (
    SELECT w.*, row_number() OVER (PARTITION BY w.file_id, w.options_hash, w.batch_id, w.word_id) AS newest
    FROM words w
    JOIN latest_transcripts t
        ON w.file_id = t.file_id AND w.options_hash = t.options_hash AND w.batch_id = t.batch_id
)
WHERE newest = 1;
