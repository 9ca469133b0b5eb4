-- How fast people speak: words for each minute in which somebody spoke, pauses left out. Words are what stands between
-- spaces, in Korean too; it works without --timestamps word.
SELECT source_uri, language, words, round(words / (speech_s / 60), 1) AS words_per_minute
FROM (
    SELECT source_uri, language, speech_s, len(regexp_extract_all(text, '\S+')) AS words
    FROM latest_transcripts
    WHERE status = 'landed' AND speech_s > 0
)
ORDER BY words_per_minute DESC, source_uri;
