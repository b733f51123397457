"""Server: HTTP server for models with OpenAI's API.

process.py             binding the address, opening the models, serving until a signal
thread_choice.py       the number of CPU threads, by a short measurement
app.py                 the table of routes, and the ASGI app
request_middleware.py  around every route: access, bounded bodies, errors, the log, the metrics
access_policy.py       Host, Origin, API key, content type
request_log.py         one JSON line per request
metrics.py             counts and times for Prometheus
context.py             models and limits of the server, counts of a request
openapi.py             routes, and their description generated from the dataclasses
fields.py              JSON bodies parsed into dataclasses, every field with its type, range and description
field_rules.py         ranges and lengths of fields, and the checks of single values
errors.py              errors as JSON in OpenAI's format, with HTTP statuses
chat_completions.py    POST /v1/chat/completions; with chat_messages.py and chat_answers.py
completions.py         POST /v1/completions; with completion_texts.py
embeddings.py          POST /v1/embeddings
models.py              GET /v1/models
tokenizing.py          POST /tokenize and /detokenize, GET /tokenizer_info
text_fields.py         common fields of chats and completions
text_requests.py       fields and prompt ids as requests of an engine; with prompts.py
generated_text.py      generated texts with their tokens
logprobs.py            log-probabilities in the formats of the API
streaming.py           texts as server-sent events while they are generated
"""
