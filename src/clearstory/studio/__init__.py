"""Studio: a local web page over a folder of models and runs. It calls what the command line calls, and nothing else.

serving.py    the address, the token, the server
app.py        every route, and who answers it
guard.py      who may ask: Host, Origin, content type, size, token; and what a browser may do with the answer
asked.py      what a request says, typed; what went wrong, in a sentence
found.py      which models and runs lie in the folder, read without opening any
shelf.py      models opened once, one request at a time, the least used put away
looking.py    views, traces, and numbers as bytes
choosing.py   the next token under temperature, top-k and top-p
writing.py    text token by token, any step of it, branches too
ways.py       greedy, drawn and by beam search, side by side
attended.py   what the newest token looks at
speed.py      tokens per second, with what is kept and without
guessing.py   the reader's guess of the next token, scored beside the model
training.py   runs as processes of their own
forms.py      settings as forms
static/       the page itself: plain modules, no build step, nothing from elsewhere
"""
