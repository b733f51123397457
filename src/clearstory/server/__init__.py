"""Server: models answer HTTP requests in the forms of OpenAI's API.

process.py             binding the address, opening the models, serving until a signal
thread_choice.py       the number of CPU threads, by a short measurement
app.py                 the table of routes, and the ASGI app
request_middleware.py  around every route: access, bounded bodies, errors, the log, the metrics
access_policy.py       Host, Origin, API key, content type
request_log.py         one JSON object a line for each request
metrics.py             counts and times for Prometheus
context.py             what a route reads of the server, and what it counts
openapi.py             routes, and their description made from the dataclasses
fields.py              JSON bodies parsed into dataclasses, every field with its type, range and description
field_rules.py         ranges and lengths of fields, and the checks of single values
errors.py              errors as JSON in OpenAI's form, with HTTP statuses
chat_completions.py    POST /v1/chat/completions; with chat_messages.py and chat_answers.py
completions.py         POST /v1/completions; with completion_texts.py
embeddings.py          POST /v1/embeddings
models.py              GET /v1/models
tokenizing.py          POST /tokenize and /detokenize, GET /tokenizer_info
text_fields.py         fields that chats and completions share
text_requests.py       from fields and prompt ids to what an engine takes; with prompts.py
generated_text.py      texts that were generated, with their tokens
logprobs.py            log-probabilities in the forms of the API
streaming.py           texts as server-sent events while they are generated
"""
