"""HTTP: common code of the studio and the server, from the listening socket to the JSON of a response.

listening.py          binding the address, and uvicorn with limits
connection_limits.py  time limits for requests to arrive and for responses to be read
access.py             Host, Origin, tokens
bodies.py             bodies of bounded size
json_values.py        parsing and encoding of JSON
display_text.py       external texts on one line, as valid Unicode
"""
