"""Studio: a local web server and page over a folder of models and runs, calling the command line's functions.

server.py                 the address, the access token, running uvicorn
app.py                    every HTTP route and its handler
security.py               access control: Host, Origin, content type, body size, token; response security headers
http_json.py              requests parsed into dataclasses and bounded, JSON responses, errors as HTTP statuses
model_index.py            the models and runs of the folder, listed without opening any
model_facts.py            what the small files of a model or run say about it
bounded_files.py          regular files only, of bounded size, whatever a folder holds
model_cache.py            opened models, one request per model at a time, least recently used evicted first
view_api.py               views, and arrays as bytes
trace_api.py              the tokens that a model reads, and activations
view_difference.py        one view of two models or texts, and the difference B − A
attention_api.py          attention patterns: all heads, one head, several heads combined, with interventions
embedding_api.py          embedding vectors, nearest neighbours, and the word projection over checkpoints
context_api.py            contextual embeddings of one word in two sentences
sampling_distribution.py  next-token probabilities under temperature, top-k, top-p and min-p
generation_session.py     generation token by token, with stepping back and branching
generation_attention.py   attention of the newest token during generation
decoding_comparison.py    greedy decoding, sampling and beam search side by side
generation_speed.py       tokens per second with and without the model's cached state
guess_game.py             the reader's guess of the next token, scored in bits against the model
run_processes.py          training runs as separate processes
process_times.py          when a process started
train_form.py             the settings of a training run as form fields
wait_policy.py            how OpenMP threads wait
static/                   the page: plain ES modules, no build step, nothing loaded from other hosts
"""
