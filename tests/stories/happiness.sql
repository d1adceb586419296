-- The mean human valence of a response's words in the VADER lexicon (0 for a word that is not in it), times 5.
WITH words AS (
  SELECT prompt_id, response_index, unnest(string_to_array(regexp_replace(lower(text), '[^a-z'']+', ' ', 'g'), ' ')) AS word
  FROM responses
), valences AS (
  SELECT words.prompt_id, words.response_index, avg(coalesce(lexicon.valence, 0.0)) AS mean_valence, count(*) AS words
  FROM words LEFT JOIN lexicon ON words.word = lexicon.word
  WHERE words.word <> ''
  GROUP BY words.prompt_id, words.response_index
)
SELECT responses.prompt_id, responses.response_index, 5.0 * coalesce(valences.mean_valence, 0.0) AS reward,
       CAST(coalesce(valences.words, 0) AS DOUBLE) AS words
FROM responses LEFT JOIN valences
  ON responses.prompt_id = valences.prompt_id AND responses.response_index = valences.response_index
