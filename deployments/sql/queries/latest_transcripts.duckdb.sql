-- The newest transcript of each recording.
SELECT source_uri, language, duration_s, text
FROM latest_transcripts
WHERE status = 'landed'
ORDER BY source_uri;
